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
            let pixels = residual.data[row.clone()].iter().zip(&weight.data[row]).enumerate();
            if bins.along_x {
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
                for (k, (&d, &w)) in pixels {
                    let g = INV_SQRT_TAU * inv_sigma * bell((offset + k as u32 as f32) * along * inv_sigma);
                    let w = if w > 0.0 { w } else { 0.0 };
                    signal[bin] += w * d * g;
                    variance[bin] += w * g * g;
                }
            }
        }
        (signal, variance)
    }
}
