//! Compact sources: local maxima of the filtered image, walks outwards, and footprints weighed out. GPU twins:
//! shaders/compact.wgsl, shaders/hot.wgsl, shaders/weigh.wgsl.

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Image;
use crate::backend::{MAX_WALK_PX, WALK_DIRECTIONS, walk_direction};
use crate::pipeline::weigh::{CompactSource, Footprint};

/// Local maxima (3 x 3) of the filtered image above `threshold`, in reading order.
pub(super) fn find_compact(
    filtered: &Image,
    residual: &[f32],
    weight: &[f32],
    threshold: f32,
    wing_level: f32,
) -> Vec<CompactSource> {
    let rays: Vec<Ray> = (0..WALK_DIRECTIONS).map(ray).collect();
    let of_band = |first: usize| -> Vec<CompactSource> {
        let rows = first..(first + ROWS).min(filtered.height);
        let mut bright = Vec::new();
        rows.for_each(|y| Arch::new().dispatch(FindBright { image: filtered, y, threshold, found: &mut bright }));
        let mut peaks = Vec::new();
        Arch::new().dispatch(FindPeaks { image: filtered, bright: &bright, threshold, found: &mut peaks });
        peaks.into_iter().map(|(x, y)| measure(filtered, residual, weight, x, y, wing_level, &rays)).collect()
    };
    let bands: Vec<usize> = (0..filtered.height).step_by(ROWS).collect();
    bands.into_par_iter().map(of_band).collect::<Vec<_>>().concat()
}

/// Offsets of the pixels of a walk. They are rounded, not the places: a source walks the same pixels wherever it lies.
type Ray = [(i64, i64); MAX_WALK_PX];

fn ray(direction: usize) -> Ray {
    let [step_x, step_y] = walk_direction(direction);
    std::array::from_fn(|i| {
        let r = (i + 1) as f32;
        ((r * step_x).round() as i64, (r * step_y).round() as i64)
    })
}

/// Pixels that are tested together: most of a frame is passed over in vectors.
const STRETCH: usize = 16;

/// Rows that are passed over before what is bright in them is looked at: by then its neighbours are in the cache.
const ROWS: usize = 32;

/// A stretch of a row with the eight neighbours of each pixel, in reading order.
struct Stretch {
    values: [f32; STRETCH],
    neighbours: [[f32; STRETCH]; 8],
}

impl Stretch {
    /// From a pixel on. What is beyond the border is `outside`.
    #[inline(always)]
    fn of(image: &Image, x: usize, y: usize, outside: f32) -> Self {
        let mut lines = [[outside; STRETCH + 2]; 3];
        for (dy, line) in lines.iter_mut().enumerate() {
            if y + dy < 1 || y + dy > image.height {
                continue;
            }
            let row = &image.data[(y + dy - 1) * image.width..][..image.width];
            match x.checked_sub(1).and_then(|first| row[first..].first_chunk()) {
                Some(inside) => *line = *inside,
                None => {
                    for (i, value) in line.iter_mut().enumerate() {
                        if x + i > 0 && x + i <= image.width {
                            *value = row[x + i - 1];
                        }
                    }
                }
            }
        }
        let mut neighbours = [[0.0; STRETCH]; 8];
        for (k, neighbours) in neighbours.iter_mut().enumerate() {
            // The fifth of nine is the pixel itself.
            let place = k + usize::from(k > 3);
            neighbours.copy_from_slice(&lines[place / 3][place % 3..place % 3 + STRETCH]);
        }
        let mut values = [0.0; STRETCH];
        values.copy_from_slice(&lines[1][1..=STRETCH]);
        Self { values, neighbours }
    }

    /// Which are above a threshold, greater than the neighbours read before them and not less than those after: a plateau
    /// counts once.
    #[inline(always)]
    fn are_peaks(&self, threshold: f32) -> [bool; STRETCH] {
        let mut are_peaks = [false; STRETCH];
        for (is_peak, value) in are_peaks.iter_mut().zip(&self.values) {
            *is_peak = *value > threshold;
        }
        for (k, line) in self.neighbours.iter().enumerate() {
            for i in 0..STRETCH {
                are_peaks[i] &= (self.values[i] > line[i]) | ((k > 3) & (self.values[i] == line[i]));
            }
        }
        are_peaks
    }

    /// Which exceed so many times the upper median of their neighbours.
    #[inline(always)]
    fn stand_alone(&self, ratio: f32) -> [bool; STRETCH] {
        let mut exceeded = [0_u32; STRETCH];
        for line in &self.neighbours {
            for i in 0..STRETCH {
                let neighbour = if line[i] > 0.0 { line[i] } else { 0.0 };
                exceeded[i] += u32::from(self.values[i] > ratio * neighbour);
            }
        }
        let mut stand_alone = [false; STRETCH];
        for i in 0..STRETCH {
            // The upper median of eight is the fifth: it is exceeded where five of them are.
            stand_alone[i] = exceeded[i] >= 5;
        }
        stand_alone
    }
}

/// Stretches of a row that hold a pixel above a threshold, by their first pixels.
struct FindBright<'a> {
    image: &'a Image,
    y: usize,
    threshold: f32,
    found: &'a mut Vec<(usize, usize)>,
}

impl NullaryFnOnce for FindBright<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { image, y, threshold, found } = self;
        for (k, values) in image.data[y * image.width..(y + 1) * image.width].chunks(STRETCH).enumerate() {
            let mut any = false;
            for value in values {
                any |= *value > threshold;
            }
            if any {
                found.push((k * STRETCH, y));
            }
        }
    }
}

/// The peaks in these stretches.
struct FindPeaks<'a> {
    image: &'a Image,
    bright: &'a [(usize, usize)],
    threshold: f32,
    found: &'a mut Vec<(usize, usize)>,
}

impl NullaryFnOnce for FindPeaks<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for &(x, y) in self.bright {
            let are_peaks = Stretch::of(self.image, x, y, f32::NEG_INFINITY).are_peaks(self.threshold);
            for (i, is_peak) in are_peaks.into_iter().enumerate() {
                if is_peak {
                    self.found.push((x + i, y));
                }
            }
        }
    }
}

/// Rows whose lone pixels are weighed out.
struct WeighOutHot<'a> {
    residual: &'a Image,
    weights: &'a mut [f32],
    first_row: usize,
    threshold: f32,
    ratio: f32,
}

impl NullaryFnOnce for WeighOutHot<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { residual, weights, first_row, threshold, ratio } = self;
        let width = residual.width;
        let mut bright = Vec::new();
        for (y, weights) in (first_row..).zip(weights.chunks(width)) {
            let values = &residual.data[y * width..(y + 1) * width];
            for (k, (weights, values)) in weights.chunks(STRETCH).zip(values.chunks(STRETCH)).enumerate() {
                let mut any = false;
                for (weight, value) in weights.iter().zip(values) {
                    any |= stands_out(*value, *weight, threshold);
                }
                if any {
                    bright.push((k * STRETCH, y));
                }
            }
        }
        for (x, y) in bright {
            let stretch = Stretch::of(residual, x, y, 0.0);
            let stand_alone = stretch.stand_alone(ratio);
            let weights = &mut weights[(y - first_row) * width..][x..width.min(x + STRETCH)];
            for (i, weight) in weights.iter_mut().enumerate() {
                let is_hot = stand_alone[i] & stands_out(stretch.values[i], *weight, threshold);
                *weight = if is_hot { 0.0 } else { *weight };
            }
        }
    }
}

#[inline(always)]
fn stands_out(value: f32, weight: f32, threshold: f32) -> bool {
    (weight > 0.0) & (value > 0.0) & (value * value * weight > threshold * threshold)
}

fn at(image: &Image, x: i64, y: i64) -> Option<f32> {
    let inside = x >= 0 && y >= 0 && x < image.width as i64 && y < image.height as i64;
    inside.then(|| image.data[y as usize * image.width + x as usize])
}

fn measure(
    filtered: &Image,
    residual: &[f32],
    weight: &[f32],
    x: usize,
    y: usize,
    wing_level: f32,
    rays: &[Ray],
) -> CompactSource {
    let i = y * filtered.width + x;
    let peak = filtered.data[i];
    let core_level = 0.25 * peak;
    let (mut core_reach, mut wing_reach) = ([0; WALK_DIRECTIONS], [0; WALK_DIRECTIONS]);
    let walk_to = |ray: &Ray, from: usize, level: f32| {
        let is_beyond = |(dx, dy): &(i64, i64)| at(filtered, x as i64 + dx, y as i64 + dy).is_none_or(|v| v < level);
        from + ray[from..].iter().position(is_beyond).unwrap_or(MAX_WALK_PX - from)
    };
    for (k, ray) in rays.iter().enumerate() {
        // What is above the higher level is above the lower one.
        let higher = walk_to(ray, 0, core_level.max(wing_level));
        let lower = walk_to(ray, higher, core_level.min(wing_level));
        let (core, wing) = if core_level > wing_level { (higher, lower) } else { (lower, higher) };
        (core_reach[k], wing_reach[k]) = (core as u8, wing as u8);
    }
    CompactSource {
        x: x as u32,
        y: y as u32,
        peak,
        centre: residual[i] * weight[i].abs().sqrt(),
        saturated: touches_saturated(weight, filtered.width, x, y),
        core_reach,
        wing_reach,
    }
}

/// Whether a pixel, or one no more than two columns and two rows away, is saturated.
fn touches_saturated(weight: &[f32], width: usize, x: usize, y: usize) -> bool {
    let rows = y.saturating_sub(2)..(y + 3).min(weight.len() / width);
    let columns = x.saturating_sub(2)..(x + 3).min(width);
    rows.flat_map(|y| &weight[y * width..][columns.clone()]).any(|w| *w < 0.0)
}

/// Sets the weight of pixels to zero that stand out, and exceed `ratio` times the upper median of their eight neighbours'
/// residuals, whatever the weights of these: they may be changing. Beyond the border is dark.
pub(super) fn weigh_out_hot(residual: &Image, weight: &mut Image, threshold: f32, ratio: f32) {
    weight.data.par_chunks_mut(ROWS * residual.width).enumerate().for_each(|(band, weights)| {
        Arch::new().dispatch(WeighOutHot { residual, weights, first_row: band * ROWS, threshold, ratio });
    });
}

/// Sets the weight of every pixel within the footprints to zero.
pub(super) fn weigh_out(weight: &mut Image, footprints: &[Footprint]) {
    let (width, height) = (weight.width as f32, weight.height as f32);
    for f in footprints {
        let rows = (f.y - f.radius_px).ceil().max(0.0)..=(f.y + f.radius_px).floor().min(height - 1.0);
        for y in *rows.start() as i64..=*rows.end() as i64 {
            let half = (f.radius_px * f.radius_px - (y as f32 - f.y).powi(2)).max(0.0).sqrt();
            let first = (f.x - half).ceil().max(0.0) as i64;
            let last = (f.x + half).floor().min(width - 1.0) as i64;
            if first <= last {
                let row = y as usize * weight.width;
                weight.data[row + first as usize..=row + last as usize].fill(0.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pixel_two_columns_off_makes_a_source_saturated() {
        let touches = |x: usize, y: usize| {
            let mut weight = vec![1.0; 16 * 12];
            weight[y * 16 + x] = -1.0;
            touches_saturated(&weight, 16, 7, 5)
        };
        assert!(touches(7, 5) && touches(9, 5) && touches(5, 7) && touches(9, 3));
        assert!(!touches(10, 5) && !touches(4, 5) && !touches(7, 8) && !touches(7, 2));
        assert!(touches_saturated(&[-1.0, 1.0, 1.0, 1.0], 2, 1, 1), "at the border");
    }

    #[test]
    fn stretches_see_what_single_looks_see() {
        // One row, narrower than a stretch, not a multiple of one, and more rows than go together.
        for (width, height) in [(1, 1), (5, 3), (16, 2), (33, 70), (40, 1)] {
            let data = crate::simulate::gaussian_frame(width, height, 7, 1.0);
            let image = Image { width, height, data };
            let around = |i: usize, outside: f32| -> Vec<f32> {
                let (x, y) = ((i % width) as i64, (i / width) as i64);
                let offsets = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))).filter(|o| *o != (0, 0));
                offsets.map(|(dx, dy)| at(&image, x + dx, y + dy).unwrap_or(outside)).collect()
            };
            let peaks = find_compact(&image, &image.data, &vec![1.0; width * height], 0.5, 0.1);
            let is_peak = |i: &usize| {
                let (v, around) = (image.data[*i], around(*i, f32::NEG_INFINITY));
                v > 0.5 && around.iter().all(|n| v > *n)
            };
            let found: Vec<usize> = peaks.iter().map(|p| p.y as usize * width + p.x as usize).collect();
            assert_eq!(found, (0..width * height).filter(is_peak).collect::<Vec<_>>(), "{width} {height}");

            let (mut weight, ratio) = (Image { data: vec![1.0; width * height], ..image.clone() }, 2.5);
            weigh_out_hot(&image, &mut weight, 1.0, ratio);
            let is_hot = |i: usize| {
                let (v, mut around) = (image.data[i], around(i, 0.0));
                around.sort_unstable_by(f32::total_cmp);
                v > 1.0 && v > ratio * around[4].max(0.0)
            };
            let expected: Vec<f32> = (0..width * height).map(|i| if is_hot(i) { 0.0 } else { 1.0 }).collect();
            assert_eq!(weight.data, expected, "{width} {height}");
        }
        // Of equal neighbours the first counts.
        let plateau = Image { width: 4, height: 2, data: vec![0.0, 3.0, 3.0, 0.0, 0.0, 3.0, 0.0, 0.0] };
        let peaks = find_compact(&plateau, &plateau.data, &[1.0; 8], 0.5, 0.1);
        assert_eq!(peaks.iter().map(|p| (p.x, p.y)).collect::<Vec<_>>(), [(1, 0)]);
    }

    #[test]
    fn walks_end_below_the_core_and_below_the_wings() {
        let (side, centre) = (61, 30_i64);
        let r2 = |i: usize| (i as i64 % side - centre).pow(2) + (i as i64 / side - centre).pow(2);
        let data: Vec<f32> = (0..(side * side) as usize).map(|i| 20.0 * (-0.02 * r2(i) as f32).exp()).collect();
        let image = Image { width: side as usize, height: side as usize, data };
        // Wings below the core's level of a quarter, and above it.
        for wing_level in [1.0, 8.0] {
            let found = find_compact(&image, &image.data, &vec![1.0; (side * side) as usize], 10.0, wing_level);
            assert_eq!((found.len(), found[0].x, found[0].y), (1, 30, 30));
            for k in 0..WALK_DIRECTIONS {
                let reach = |level: f32| {
                    ray(k).iter().position(|(dx, dy)| at(&image, 30 + dx, 30 + dy).is_none_or(|v| v < level)).unwrap()
                };
                let (core, wing) = (found[0].core_reach[k], found[0].wing_reach[k]);
                assert_eq!((usize::from(core), usize::from(wing)), (reach(5.0), reach(wing_level)), "{k}");
            }
        }
    }
}
