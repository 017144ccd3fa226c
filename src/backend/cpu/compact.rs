//! Compact sources: local maxima of the filtered image, walks outwards, and footprints weighed out. GPU twins:
//! shaders/compact.wgsl, shaders/hot.wgsl, shaders/weigh.wgsl.

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
    let (width, height) = (filtered.width, filtered.height);
    let rays: Vec<Ray> = (0..WALK_DIRECTIONS).map(ray).collect();
    let rows: Vec<Vec<CompactSource>> = (0..height)
        .into_par_iter()
        .map(|y| {
            let row = &filtered.data[y * width..(y + 1) * width];
            stretches_with(row, |v| v > threshold)
                .filter(|&x| is_peak(filtered, x, y, threshold))
                .map(|x| measure(filtered, residual, weight, x, y, wing_level, &rays))
                .collect()
        })
        .collect();
    rows.concat()
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

/// Indices of the stretches of a line in which something is wanted.
fn stretches_with(line: &[f32], wanted: impl Fn(f32) -> bool) -> impl Iterator<Item = usize> {
    let stretches = line.chunks(STRETCH).enumerate();
    stretches
        .filter(move |(_, s)| s.iter().fold(false, |any, v| any | wanted(*v)))
        .flat_map(|(k, s)| k * STRETCH..k * STRETCH + s.len())
}

/// Greater than the neighbours read before it, and not less than those after: a plateau counts once.
fn is_peak(image: &Image, x: usize, y: usize, threshold: f32) -> bool {
    let value = image.data[y * image.width + x];
    if value <= threshold {
        return false;
    }
    let (x, y) = (x as i64, y as i64);
    (-1..=1).all(|dy| {
        (-1..=1).all(|dx| {
            let before = (dy, dx) < (0, 0);
            let neighbour = at(image, x + dx, y + dy).unwrap_or(f32::NEG_INFINITY);
            (dx, dy) == (0, 0) || value > neighbour || (!before && value == neighbour)
        })
    })
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
    for (k, ray) in rays.iter().enumerate() {
        let reaches = |level: f32| {
            let is_beyond =
                |(dx, dy): &(i64, i64)| at(filtered, x as i64 + dx, y as i64 + dy).is_none_or(|v| v < level);
            ray.iter().position(is_beyond).unwrap_or(MAX_WALK_PX) as u8
        };
        core_reach[k] = reaches(core_level);
        wing_reach[k] = reaches(wing_level);
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

/// Sets the weight of pixels to zero that stand alone above their neighbours.
pub(super) fn weigh_out_hot(residual: &Image, weight: &mut Image, threshold: f32, ratio: f32) {
    let width = residual.width;
    let stands_out = |value: f32, w: f32| (w > 0.0) & (value > 0.0) & (value * value * w > threshold * threshold);
    weight.data.par_chunks_mut(width).zip(residual.data.par_chunks(width)).enumerate().for_each(
        |(y, (weights, values))| {
            let stretches = weights.chunks_mut(STRETCH).zip(values.chunks(STRETCH)).enumerate();
            for (k, (weights, values)) in stretches {
                if !values.iter().zip(&*weights).fold(false, |any, (&v, &w)| any | stands_out(v, w)) {
                    continue;
                }
                for (i, (w, &value)) in weights.iter_mut().zip(values).enumerate() {
                    if stands_out(value, *w) && stands_alone(residual, k * STRETCH + i, y, ratio) {
                        *w = 0.0;
                    }
                }
            }
        },
    );
}

/// Whether a pixel exceeds so many times the upper median of its eight neighbours' residuals, whatever their weights:
/// those may be changing. Beyond the border is dark.
fn stands_alone(residual: &Image, x: usize, y: usize, ratio: f32) -> bool {
    let value = residual.data[y * residual.width + x];
    let exceeds = |(dx, dy): (i64, i64)| {
        let neighbour = at(residual, x as i64 + dx, y as i64 + dy).unwrap_or(0.0);
        value > ratio * neighbour.max(0.0)
    };
    // The upper median of eight is the fifth: it is exceeded where five of them are.
    let offsets = (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))).filter(|o| *o != (0, 0));
    offsets.filter(|o| exceeds(*o)).count() >= 5
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
}
