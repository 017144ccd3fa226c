//! What was found against what is there.

use skystreak::simulate::Bounds;
use skystreak::{Detection, Report, Segment, track_angle_difference};

/// Detections that lie on a track: middle within 3 px of it, angle within 10 degrees.
///
/// Pieces of a broken streak all lie on it, its neighbours do not.
pub fn on_track<'r>(report: &'r Report, truth: &Segment) -> Vec<&'r Detection> {
    let near = |d: &&Detection| {
        truth.distance_to(d.midpoint()) <= 3.0
            && track_angle_difference(d.angle_rad(), truth.angle_rad()) <= 10_f64.to_radians()
    };
    report.detections.iter().filter(near).collect()
}

/// Distance of the true midpoint from the line of a detection, px.
pub fn across_px(d: &Detection, truth: &Segment) -> f64 {
    d.segment.along_across(truth.midpoint()).1.abs()
}

/// How far both ends are from their places along the true track, px, in the order of the true ends.
pub fn ends_along_px(d: &Detection, truth: &Segment) -> [f64; 2] {
    let along = [d.segment.start, d.segment.end].map(|end| truth.along_across(end).0);
    let [first, last] = [along[0].min(along[1]), along[0].max(along[1])];
    [first.abs(), (last - truth.length_px()).abs()]
}

/// Standard error of an end along the track, px: the Cramér-Rao bound, and what it does not know.
///
/// A change of brightness in noise is found to √26 · length / SNR² at best, however sharp it is: the place of the
/// maximum of a random walk with drift.
pub fn end_scale_px(bounds: &Bounds, length_px: f64, snr: f64) -> f64 {
    bounds.end_along_px.hypot(26_f64.sqrt() * length_px / (snr * snr))
}
