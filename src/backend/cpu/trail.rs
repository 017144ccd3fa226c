//! Trails put into an image and taken out of it. GPU twin: shaders/trail.wgsl.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Image;
use super::model::{Model, Origin, light};
use crate::backend::trail_reach_px;
use crate::pipeline::measure::{StampWalk, Trail};

/// Rows that one core works on.
const BAND: usize = 32;

/// Fewer trails are not worth waking the other cores for.
const MANY: usize = 8;

/// Pixels of a row that are worked on side by side.
const PART: usize = 16;

/// Adds `factor` times the models of some trails to the image, in their order at every pixel.
pub(super) fn add(image: &mut Image, trails: &[Trail], factor: f32) {
    let (width, height) = (image.width, image.height);
    let ready: Vec<Ready> = trails.iter().map(|t| Ready::new(t, width, height)).collect();
    let in_band = |(k, pixels): (usize, &mut [f32])| {
        let rows = k * BAND..((k + 1) * BAND).min(height);
        Arch::new().dispatch(InBand { pixels, width, rows, trails: &ready, factor });
    };
    if trails.len() < MANY {
        image.data.chunks_mut(BAND * width).enumerate().for_each(in_band);
    } else {
        image.data.par_chunks_mut(BAND * width).enumerate().for_each(in_band);
    }
}

/// A trail made ready to be added.
struct Ready {
    origin: Origin,
    model: Model,
    walk: StampWalk,
    rows: Range<usize>,
}

impl Ready {
    fn new(trail: &Trail, width: usize, height: usize) -> Self {
        let origin = Origin::of(&trail.segment);
        let walk = StampWalk::new(&trail.segment, trail_reach_px(trail), width, height);
        Self { origin, model: Model::new(trail, origin), walk, rows: walk.row_range(height) }
    }
}

/// Adds what lies in a band of rows.
struct InBand<'a> {
    pixels: &'a mut [f32],
    width: usize,
    rows: Range<usize>,
    trails: &'a [Ready],
    factor: f32,
}

impl NullaryFnOnce for InBand<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { pixels, width, rows: band, trails, factor } = self;
        for trail in trails {
            let rows = trail.rows.start.max(band.start)..trail.rows.end.min(band.end);
            for (y, columns) in trail.walk.rows_in(width, rows) {
                let row = &mut pixels[(y - band.start) * width..][columns.clone()];
                let (x, y) = (trail.origin.local_x(columns.start), trail.origin.local_y(y));
                for (first, part) in (0_u32..).step_by(PART).zip(row.chunks_mut(PART)) {
                    trail.add(factor, x + first as f32, y, part);
                }
            }
        }
    }
}

impl Ready {
    /// Adds to some pixels side by side in a row, from `x` on.
    #[inline(always)]
    fn add(&self, factor: f32, x: f32, y: f32, pixels: &mut [f32]) {
        let mut xs = [x; PART];
        for (k, x) in xs.iter_mut().enumerate() {
            *x += k as i32 as f32;
        }
        let light = light(&self.model, &xs, &[y; PART]);
        for (value, light) in pixels.iter_mut().zip(light) {
            *value += factor * light;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Segment;

    #[test]
    fn trails_are_added_as_if_one_by_one() {
        let noise = crate::simulate::gaussian_frame(40, 1, 5, 1.0);
        for (width, height) in [(300, 130), (70, 65), (33, 32), (1, 200), (200, 1), (8, 8), (1, 1)] {
            let place = |i: usize, side: usize| (0.5 + 0.4 * f64::from(noise[i % 40])) * side as f64;
            let trail = |i: usize| {
                let start = (place(i, width), place(i + 11, height));
                let end = if i % 5 == 4 { start } else { (place(i + 7, width), place(i + 23, height)) };
                let segment = Segment::from_coordinates(start.0, start.1, end.0, end.1);
                Trail { segment, flux: 500.0, background: 0.0, sigma_eff_px: 1.4 }
            };
            let trails: Vec<Trail> = (0..2 * MANY).map(trail).collect();
            let empty = Image { width, height, data: vec![0.0; width * height] };
            let (mut together, mut in_turn) = (empty.clone(), empty);
            add(&mut together, &trails, -0.5);
            trails.iter().for_each(|trail| add(&mut in_turn, &[*trail], -0.5));
            assert_eq!(together.data, in_turn.data);
            for (i, value) in together.data.iter().enumerate() {
                let of_trail = |trail: &Trail| {
                    let origin = Origin::of(&trail.segment);
                    let at = [origin.local_x(i % width)];
                    light(&Model::new(trail, origin), &at, &[origin.local_y(i / width)])[0]
                };
                let all: f32 = trails.iter().map(of_trail).sum();
                assert!((value + 0.5 * all).abs() < 1e-3, "{value} {all} at {i} of {width} x {height}");
            }
        }
    }
}
