//! Light along a track, bin by bin. GPU twin: shaders/profile.wgsl.

use super::Image;
use crate::backend::{ProfileBins, TrackProfile};
use crate::geometry::Segment;

/// Sums `w d G` and `w G²` over the pixels of every row (or column) the track passes, `G` the transverse profile.
pub(super) fn profile(residual: &Image, weight: &Image, track: &Segment, sigma_eff_px: f32) -> TrackProfile {
    let bins = ProfileBins::of(track);
    let (c, s) = track.direction();
    let (along, across) = if bins.along_x { (c, s) } else { (s, c) };
    let (a0, b0) = if bins.along_x { (track.start.x, track.start.y) } else { (track.start.y, track.start.x) };
    let (side_a, side_b) =
        if bins.along_x { (residual.width, residual.height) } else { (residual.height, residual.width) };
    let half = (3.0 * f64::from(sigma_eff_px) / along.abs()).ceil() as i64;
    let norm = 1.0 / ((std::f32::consts::TAU).sqrt() * sigma_eff_px);
    let (mut signal, mut variance) = (vec![0.0; bins.n], vec![0.0; bins.n]);
    for bin in 0..bins.n {
        let a = bins.first + bin as i64;
        if a < 0 || a >= side_a as i64 {
            continue;
        }
        let centre = b0 + (a as f64 - a0) * across / along;
        let middle = centre.round() as i64;
        for b in (middle - half).max(0)..=(middle + half).min(side_b as i64 - 1) {
            let v = ((b as f64 - centre) * along) as f32 / sigma_eff_px;
            let g = norm * (-0.5 * v * v).exp();
            let (x, y) = if bins.along_x { (a, b) } else { (b, a) };
            let i = y as usize * residual.width + x as usize;
            let w = weight.data[i].max(0.0);
            signal[bin] += w * residual.data[i] * g;
            variance[bin] += w * g * g;
        }
    }
    bins.profile(track, signal, variance)
}
