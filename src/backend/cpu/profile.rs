//! Light along a track, bin by bin. GPU twin: shaders/profile.wgsl.

use pulp::{Arch, NullaryFnOnce};

use super::Image;
use super::gauss::{INV_SQRT_TAU, bell};
use crate::backend::{ProfileBins, TrackProfile};
use crate::geometry::Segment;
use crate::pipeline::measure::StampWalk;

/// Sums `w d G` and `w G²` over the pixels of every row (or column) the track passes, `G` the transverse profile.
pub(super) fn profile(residual: &Image, weight: &Image, track: &Segment, sigma_eff_px: f32) -> TrackProfile {
    let bins = ProfileBins::of(track);
    let (signal, variance) = Arch::new().dispatch(Pass { residual, weight, track, sigma_eff_px, bins });
    bins.profile(track, signal, variance)
}

/// Pixels of a row that are worked on side by side: most tracks have no more.
const PART: usize = 16;

/// The sums of all bins, in the order of the axis.
struct Pass<'a> {
    residual: &'a Image,
    weight: &'a Image,
    track: &'a Segment,
    sigma_eff_px: f32,
    bins: ProfileBins,
}

impl NullaryFnOnce for Pass<'_> {
    type Output = (Vec<f32>, Vec<f32>);

    #[inline(always)]
    fn call(self) -> (Vec<f32>, Vec<f32>) {
        let Self { residual, weight, track, sigma_eff_px, bins } = self;
        let (c, s) = track.direction();
        let (along, across) = if bins.along_x { (c, s) } else { (s, c) };
        let (a0, b0) = if bins.along_x { (track.start.x, track.start.y) } else { (track.start.y, track.start.x) };
        let slope = across / along;
        let walk = StampWalk {
            along_x: bins.along_x,
            first: bins.first,
            steps: bins.n,
            half_width: (3.0 * f64::from(sigma_eff_px) / along.abs()).ceil() as i64,
            slope,
            intercept: b0 - slope * a0,
        };
        let (along, slope) = (along as f32, slope as f32);
        let inv_sigma = 1.0 / sigma_eff_px;
        let (mut signal, mut variance) = (vec![0.0_f32; bins.n], vec![0.0_f32; bins.n]);
        for (y, columns) in walk.rows(residual.width, residual.height) {
            let first_x = columns.start as i64;
            let row = y * residual.width + columns.start..y * residual.width + columns.end;
            let (values, weights) = (&residual.data[row.clone()], &weight.data[row.clone()]);
            if bins.along_x {
                let pixels = values.iter().zip(weights).enumerate();
                // How far the row lies from the track at the first column; each further one adds a slope.
                let offset = (y as f64 - walk.intercept - walk.slope * first_x as f64) as f32;
                let first_bin = (first_x - bins.first) as usize;
                let sums = signal[first_bin..].iter_mut().zip(&mut variance[first_bin..]);
                for ((k, (&d, &w)), (signal, variance)) in pixels.zip(sums) {
                    let g = INV_SQRT_TAU * inv_sigma * bell((offset - slope * k as u32 as f32) * along * inv_sigma);
                    let w = if w > 0.0 { w } else { 0.0 };
                    *signal += w * d * g;
                    *variance += w * g * g;
                }
            } else {
                let offset = (first_x as f64 - walk.intercept - walk.slope * y as f64) as f32;
                let bin = (y as i64 - bins.first) as usize;
                for part in 0..values.len().div_ceil(PART) {
                    // Side by side first, and summed in their order then. What lies beyond the row has weight zero.
                    let (first, n) = (part * PART, (values.len() - part * PART).min(PART));
                    let d = window(&residual.data, row.start + first);
                    let mut w = window(&weight.data, row.start + first);
                    w.iter_mut().enumerate().for_each(|(k, w)| *w = if k < n { *w } else { 0.0 });
                    let (mut wdg, mut wgg) = ([0.0_f32; PART], [0.0_f32; PART]);
                    for k in 0..PART {
                        let from_first = (first + k) as u32 as f32;
                        let g = INV_SQRT_TAU * inv_sigma * bell((offset + from_first) * along * inv_sigma);
                        let w = if w[k] > 0.0 { w[k] } else { 0.0 };
                        (wdg[k], wgg[k]) = (w * d[k] * g, w * g * g);
                    }
                    signal[bin] = wdg.iter().fold(signal[bin], |sum, v| sum + v);
                    variance[bin] = wgg.iter().fold(variance[bin], |sum, v| sum + v);
                }
            }
        }
        (signal, variance)
    }
}

/// So many pixels from one on; zeros beyond the last. A copy of known length needs no call.
#[inline(always)]
fn window(pixels: &[f32], first: usize) -> [f32; PART] {
    match pixels[first..].first_chunk() {
        Some(window) => *window,
        None => std::array::from_fn(|k| pixels.get(first + k).copied().unwrap_or(0.0)),
    }
}
