//! Light along tracks, bin by bin. GPU twin: shaders/profile.wgsl.
//!
//! A track comes to a new place in memory with every row, and there may be thousands of them. They are followed side by
//! side, band of rows by band, so that what one has fetched serves the others.

use std::ops::Range;

use pulp::{Arch, NullaryFnOnce};
use rayon::prelude::*;

use super::Image;
use crate::backend::{ProfileBins, TrackProfile};
use crate::gauss::{INV_SQRT_TAU, bell};
use crate::geometry::Segment;
use crate::pipeline::measure::StampWalk;

/// Sums `w d G` and `w G²` over the pixels of every row (or column) a track passes, `G` the transverse profile.
pub(super) fn profiles(residual: &Image, weight: &Image, tracks: &[Segment], sigma_eff_px: f32) -> Vec<TrackProfile> {
    // One part for each core, which then reads the image once.
    let together = tracks.len().div_ceil(rayon::current_num_threads()).max(1);
    let some = |tracks: &[Segment]| -> Vec<TrackProfile> {
        let mut passes: Vec<Pass> = tracks.iter().map(|t| Pass::new(t, sigma_eff_px, residual.height)).collect();
        for first in (0..residual.height).step_by(BAND) {
            let band = first..(first + BAND).min(residual.height);
            Arch::new().dispatch(InBand { residual, weight, band, passes: &mut passes });
        }
        let done = passes.into_iter().zip(tracks);
        done.map(|(pass, track)| pass.bins.profile(track, pass.signal, pass.variance)).collect()
    };
    tracks.par_chunks(together).flat_map_iter(some).collect()
}

/// Rows of a band: of both images they stay in a core's second cache up to 4096 columns.
const BAND: usize = 32;

/// Pixels of a row that are worked on side by side: most tracks have no more.
const PART: usize = 16;

/// One track, and the sums of its bins in the order of the axis.
struct Pass {
    bins: ProfileBins,
    walk: StampWalk,
    rows: Range<usize>,
    /// Across the track, in PSF widths: from pixel to pixel of a row, and for a pixel across the walk.
    step: f32,
    across: f64,
    /// Height of the transverse profile.
    height: f32,
    signal: Vec<f32>,
    variance: Vec<f32>,
}

impl Pass {
    fn new(track: &Segment, sigma_eff_px: f32, height: usize) -> Self {
        let bins = ProfileBins::of(track);
        let (c, s) = track.direction();
        let (along, across) = if bins.along_x { (c, s) } else { (s, c) };
        let (a0, b0) = if bins.along_x { (track.start.x, track.start.y) } else { (track.start.y, track.start.x) };
        let (slope, sigma) = (across / along, f64::from(sigma_eff_px));
        let walk = StampWalk {
            along_x: bins.along_x,
            first: bins.first,
            steps: bins.n,
            half_width: (3.0 * sigma / along.abs()).ceil() as i64,
            slope,
            intercept: b0 - slope * a0,
        };
        Self {
            bins,
            walk,
            rows: walk.row_range(height),
            step: (along / sigma * if bins.along_x { -slope } else { 1.0 }) as f32,
            across: along / sigma,
            height: INV_SQRT_TAU / sigma_eff_px,
            signal: vec![0.0; bins.n],
            variance: vec![0.0; bins.n],
        }
    }
}

/// Adds what the rows of a band hold of some tracks.
struct InBand<'a> {
    residual: &'a Image,
    weight: &'a Image,
    band: Range<usize>,
    passes: &'a mut [Pass],
}

impl NullaryFnOnce for InBand<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { residual, weight, band, passes } = self;
        for pass in passes {
            let rows = pass.rows.start.max(band.start)..pass.rows.end.min(band.end);
            for (y, columns) in pass.walk.rows_in(residual.width, rows) {
                for x in columns.clone().step_by(PART) {
                    let at = y * residual.width + x;
                    let (d, w) = (window(&residual.data, at), window(&weight.data, at));
                    pass.add(x, y, PART.min(columns.end - x), d, w);
                }
            }
        }
    }
}

impl Pass {
    /// Adds some pixels of a row, from column `x` on.
    #[inline(always)]
    fn add(&mut self, x: usize, y: usize, n: usize, d: [f32; PART], w: [f32; PART]) {
        let (a, b) = if self.walk.along_x { (x as i64, y as i64) } else { (y as i64, x as i64) };
        let first = ((b as f64 - self.walk.intercept - self.walk.slope * a as f64) * self.across) as f32;
        let (mut wdg, mut wgg) = ([0.0_f32; PART], [0.0_f32; PART]);
        for k in 0..PART {
            let g = self.height * bell(first + self.step * k as u32 as f32);
            let w = if (w[k] > 0.0) & (k < n) { w[k] } else { 0.0 };
            (wdg[k], wgg[k]) = (w * d[k] * g, w * g * g);
        }
        // Of a steep track all pixels of a row are one bin's, of a shallow one each is the next one's.
        let bin = (a - self.walk.first) as usize;
        if self.walk.along_x {
            add_to(&mut self.signal[bin..bin + n], &wdg);
            add_to(&mut self.variance[bin..bin + n], &wgg);
        } else {
            self.signal[bin] += sum(wdg);
            self.variance[bin] += sum(wgg);
        }
    }
}

/// Adds the first of some values; side by side, for which their number has to be known, where all of them count.
#[inline(always)]
fn add_to(sums: &mut [f32], more: &[f32; PART]) {
    if let Ok(sums) = <&mut [f32; PART]>::try_from(&mut *sums) {
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum += more;
        }
    } else {
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum += more;
        }
    }
}

/// The sum of some values, halves together: side by side as long as there are many.
#[inline(always)]
fn sum(mut values: [f32; PART]) -> f32 {
    let mut n = PART;
    while n > 1 {
        n /= 2;
        for k in 0..n {
            values[k] += values[k + n];
        }
    }
    values[0]
}

/// So many pixels from one on; zeros beyond the last. A copy of known length needs no call.
#[inline(always)]
fn window(pixels: &[f32], first: usize) -> [f32; PART] {
    match pixels[first..].first_chunk() {
        Some(window) => *window,
        None => std::array::from_fn(|k| pixels.get(first + k).copied().unwrap_or(0.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    #[test]
    fn profiles_are_sums_over_the_pixels_beside_the_track() {
        let (width, height, sigma) = (150, 130, 1.6_f32);
        let image =
            |seed: u64| Image { width, height, data: crate::simulate::gaussian_frame(width, height, seed, 1.0) };
        let residual = image(5);
        // A third of the weights are negative, for saturated pixels, and count as none.
        let mut weight = image(6);
        weight.data.iter_mut().for_each(|w| *w += 0.4);
        // Across bands of rows, out of the frame, and in either direction.
        let tracks: Vec<Segment> = (0..40)
            .map(|i| {
                let (middle, angle) = (Point::new(30.0 + 2.3 * f64::from(i), 65.2), 9.0 * f64::from(i) + 0.5);
                Segment::around(middle, 20.0 + 4.0 * f64::from(i), angle.to_radians())
            })
            .collect();
        for (track, profile) in tracks.iter().zip(profiles(&residual, &weight, &tracks, sigma)) {
            let bins = ProfileBins::of(track);
            let (c, s) = track.direction();
            let (along, across) = if bins.along_x { (c, s) } else { (s, c) };
            let half_width = (3.0 * f64::from(sigma) / along.abs()).ceil() as i64;
            let (a0, b0) = if bins.along_x { (track.start.x, track.start.y) } else { (track.start.y, track.start.x) };
            let (mut signal, mut variance) = (vec![0.0; bins.n], vec![0.0; bins.n]);
            for bin in 0..bins.n {
                let a = bins.first + bin as i64;
                let centre = b0 + across / along * (a as f64 - a0);
                for b in centre.round() as i64 - half_width..=centre.round() as i64 + half_width {
                    let (x, y) = if bins.along_x { (a, b) } else { (b, a) };
                    if !((0..width as i64).contains(&x) && (0..height as i64).contains(&y)) {
                        continue;
                    }
                    let at = y as usize * width + x as usize;
                    let t = (b as f64 - centre) * along / f64::from(sigma);
                    let g = (-0.5 * t * t).exp() / (f64::from(sigma) * std::f64::consts::TAU.sqrt());
                    let w = f64::from(weight.data[at].max(0.0));
                    signal[bin] += w * f64::from(residual.data[at]) * g;
                    variance[bin] += w * g * g;
                }
            }
            if bins.reversed {
                signal.reverse();
                variance.reverse();
            }
            assert_eq!(profile.signal.len(), bins.n);
            let near = |a: &[f32], b: &[f64]| a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5);
            assert!(near(&profile.signal, &signal) && near(&profile.variance, &variance), "{track:?}");
        }
    }
}
