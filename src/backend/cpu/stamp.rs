//! The pixels of one fit, and what passes over them tell.

mod passes;

use std::ops::Range;

use pulp::Arch;

use self::passes::{CHI2, CURVATURE, CoveragePass, FitPass, FluxPass, GRADIENT, POWER, Prepare};
use super::Image;
use super::model::{Model, Origin};
use crate::pipeline::measure::{FitRequest, FitSettings, N_PARAMETERS, N_TRIANGLE, StampWalk, Trail};

/// Pixels evaluated together: their intermediate values stay in the first cache.
const BLOCK: usize = 64;
type Block = [f32; BLOCK];

/// Columns that are taken together where a trail is followed along the rows; of long trails more, in so many parts at most.
const PART: usize = 16;
const MOST_PARTS: usize = 32;

/// Where the pixels lie that fill up the last block: far from everything, with weight zero.
const NOWHERE: f32 = 1e6;

/// The pixels of a stamp, coordinates relative to its origin. Kept from fit to fit for its memory.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    origin: Origin,
    x: Vec<f32>,
    y: Vec<f32>,
    /// Residual, with the start model added back where it had been taken out.
    data: Vec<f32>,
    /// Inverse variance with the source's own photons.
    weight: Vec<f32>,
    /// Inverse variance of the background alone.
    sky_weight: Vec<f32>,
    /// Where the pixels are: rows of the image, each with its columns.
    rows: Vec<(usize, Range<usize>)>,
}

/// What one pass over the stamp adds up; of the matrix and the gradient only what belongs to free parameters.
#[derive(Debug, Clone)]
pub(super) struct Sums {
    pub(super) normal: [f64; N_TRIANGLE],
    pub(super) gradient: [f64; N_PARAMETERS],
    pub(super) curvature: [f64; 2],
    pub(super) chi2: f64,
    /// Σ w light² with background noise alone.
    pub(super) power: f64,
}

impl Stamp {
    /// Takes the pixels within reach of the request's start.
    pub(super) fn gather(&mut self, residual: &Image, weight: &Image, request: &FitRequest, settings: &FitSettings) {
        let (width, height) = (residual.width, residual.height);
        let start = &request.start;
        self.origin = Origin::of(&start.segment);
        for list in [&mut self.x, &mut self.y, &mut self.data, &mut self.weight, &mut self.sky_weight] {
            list.clear();
        }
        let model = Model::new(start, self.origin);
        let reach = settings.reach_px as f32;
        let walk = StampWalk::new(&start.segment, settings.reach_px, width, height);
        self.rows.clear();
        for (y, columns) in walk.rows(width, height) {
            let local_y = self.origin.local_y(y);
            let is_near = |x: &usize| {
                let (u, v) = model.along_across(self.origin.local_x(*x), local_y);
                v.abs() <= reach && u >= -reach && u <= model.length + reach
            };
            let Some(first) = columns.clone().find(is_near) else { continue };
            let last = columns.rev().find(is_near).unwrap_or(first);
            self.rows.push((y, first..last + 1));
        }
        // Part by part along the track: most blocks see one end, or none.
        let left = self.rows.iter().map(|(_, columns)| columns.start).min().unwrap_or(0);
        let right = self.rows.iter().map(|(_, columns)| columns.end).max().unwrap_or(0);
        let part = if walk.along_x { PART.max((right - left).div_ceil(MOST_PARTS)) } else { width };
        for from in (left..right).step_by(part) {
            for (y, columns) in &self.rows {
                let columns = columns.start.max(from)..columns.end.min(from + part);
                if columns.is_empty() {
                    continue;
                }
                let row = y * width + columns.start..y * width + columns.end;
                self.y.extend(std::iter::repeat_n(self.origin.local_y(*y), columns.len()));
                self.x.extend(columns.map(|x| self.origin.local_x(x)));
                extend(&mut self.data, &residual.data[row.clone()]);
                extend(&mut self.sky_weight, &weight.data[row]);
            }
        }
        let padded = self.x.len().next_multiple_of(BLOCK);
        self.x.resize(padded, NOWHERE);
        self.y.resize(padded, NOWHERE);
        self.data.resize(padded, 0.0);
        self.sky_weight.resize(padded, 0.0);
        self.weight.resize(padded, 0.0);
        Arch::new().dispatch(Prepare {
            stamp: self,
            model,
            clip_sigmas: settings.clip_sigmas as f32,
            subtracted: request.subtracted,
            photon_variance: settings.photon_variance as f32,
        });
    }

    /// The flux that fits best with everything else as it is.
    pub(super) fn best_flux(&self, trail: &Trail) -> f64 {
        let unit = Model::new(&Trail { flux: 1.0, ..*trail }, self.origin);
        let [signal, power] = Arch::new().dispatch(FluxPass { stamp: self, unit, background: trail.background as f32 });
        if power > 0.0 { signal / power } else { 0.0 }
    }

    /// The sums of one pass, for the free parameters of a trail.
    pub(super) fn accumulate(&self, trail: &Trail, free: &[bool; N_PARAMETERS]) -> Sums {
        let model = Model::new(trail, self.origin);
        let background = trail.background as f32;
        let sums = Arch::new().dispatch(FitPass { stamp: self, model, background, free });
        Sums {
            normal: std::array::from_fn(|k| sums[k]),
            gradient: std::array::from_fn(|k| sums[GRADIENT + k]),
            curvature: [sums[CURVATURE], sums[CURVATURE + 1]],
            chi2: sums[CHI2],
            power: sums[POWER],
        }
    }

    /// Number of usable pixels.
    pub(super) fn n_usable(&self) -> usize {
        self.weight.iter().filter(|w| **w > 0.0).count()
    }

    /// Fraction of the track's width, within two PSF widths of either end, that lies on usable pixels.
    pub(super) fn end_coverage(&self, trail: &Trail) -> [f64; 2] {
        let model = Model::new(trail, self.origin);
        let sums = Arch::new().dispatch(CoveragePass { stamp: self, model });
        [0, 1].map(|end| if sums[2 * end + 1] > 0.0 { sums[2 * end] / sums[2 * end + 1] } else { 0.0 })
    }
}

/// Adds some values to a list: a copy of known length needs no call.
#[inline(always)]
fn extend(list: &mut Vec<f32>, values: &[f32]) {
    match <&[f32; PART]>::try_from(values) {
        Ok(values) => list.extend_from_slice(values),
        Err(_) => list.extend_from_slice(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Segment;
    use crate::pipeline::measure::{Shape, UNCLIPPED_SIGMAS};

    const SIZE: (usize, usize) = (300, 200);

    fn settings() -> FitSettings {
        FitSettings {
            shape: Shape::Trail,
            free_background: true,
            free_sigma: true,
            sigma_range: (0.3, 7.5),
            sigma_prior: None,
            reach_px: 9.0,
            photon_variance: 0.01,
            clip_sigmas: UNCLIPPED_SIGMAS,
            max_iterations: 0,
        }
    }

    fn image(data: Vec<f32>) -> Image {
        Image { width: SIZE.0, height: SIZE.1, data }
    }

    fn noise(seed: u64) -> Vec<f32> {
        crate::simulate::gaussian_frame(SIZE.0, SIZE.1, seed, 1.0)
    }

    fn trail(x1: f64, y1: f64, x2: f64, y2: f64) -> Trail {
        Trail { segment: Segment::from_coordinates(x1, y1, x2, y2), flux: 900.0, background: 0.1, sigma_eff_px: 1.5 }
    }

    fn gathered(residual: &Image, weight: &Image, trail: &Trail) -> Stamp {
        let mut stamp = Stamp::default();
        stamp.gather(residual, weight, &FitRequest { start: *trail, subtracted: true }, &settings());
        stamp
    }

    #[test]
    fn a_stamp_holds_each_pixel_within_reach_once() {
        let all = image(vec![1.0; SIZE.0 * SIZE.1]);
        for t in [
            trail(20.0, 30.0, 70.0, 41.0),
            trail(70.0, 41.0, 20.0, 130.0),
            trail(5.0, 190.0, 290.0, 7.0),
            trail(150.0, 60.0, 190.0, 60.0),
            trail(-3.0, 100.0, 12.0, 100.5),
            trail(90.0, 90.0, 90.0, 90.0),
        ] {
            let stamp = gathered(&all, &all, &t);
            let mut places: Vec<(i64, i64)> =
                stamp.x.iter().zip(&stamp.y).map(|(x, y)| (*x as i64, *y as i64)).collect();
            places.retain(|place| place.0 < 1000);
            let n_pixels = places.len();
            places.sort_unstable();
            places.dedup();
            assert_eq!((places.len(), stamp.n_usable()), (n_pixels, n_pixels), "each once, {t:?}");
            let pixels = (0..SIZE.0 * SIZE.1).map(|i| (i % SIZE.0, i / SIZE.0));
            let near: Vec<(i64, i64)> = pixels
                .filter(|&(x, y)| t.segment.distance_to(crate::Point::new(x as f64, y as f64)) < 8.99)
                .map(|(x, y)| (stamp.origin.local_x(x) as i64, stamp.origin.local_y(y) as i64))
                .collect();
            assert!(near.iter().all(|place| places.binary_search(place).is_ok()), "all within reach, {t:?}");
            // In the corners, and at the edge of a row, there are some more.
            assert!(n_pixels < near.len() + near.len() / 5 + 80, "{n_pixels} {}, {t:?}", near.len());
        }
    }

    #[test]
    fn saturated_pixels_weigh_nothing() {
        let t = trail(60.0, 50.0, 110.0, 71.0);
        let (mut residual, mut weight) = (image(noise(3)), image(vec![1.0; SIZE.0 * SIZE.1]));
        let full = [60 + 50 * SIZE.0, 84 + 60 * SIZE.0, 85 + 60 * SIZE.0];
        let mut measured = |value: f32, of_full: f32| {
            for pixel in full {
                (residual.data[pixel], weight.data[pixel]) = (value, of_full);
            }
            let stamp = gathered(&residual, &weight, &t);
            let sums = stamp.accumulate(&t, &settings().free_parameters());
            (stamp.n_usable(), sums.chi2, sums.power, sums.normal, stamp.end_coverage(&t))
        };
        let missing = measured(0.0, 0.0);
        assert_eq!(measured(1e5, -1.0), missing);
        let all = measured(0.0, 1.0);
        assert_eq!(all.0, missing.0 + 3);
        assert!(all.2 > 1.001 * missing.2 && missing.4[0] < 0.99 && missing.4[1] > 0.999, "{all:?} {missing:?}");
    }
}
