//! The pixels under the detections.

use crate::{Point, Report, Segment};

/// Half-width of a mask that covers nearly all light of a track: beyond 3 σ lies 0.3 % of a Gaussian profile.
pub const DEFAULT_WIDTH_IN_SIGMAS: f64 = 3.0;

/// True for every pixel whose centre lies within `width_in_sigmas` times a detection's σ of its track.
///
/// Row-major, `report.width * report.height` values. Streaks, points and star trails count alike.
#[must_use]
pub fn affected(report: &Report, width_in_sigmas: f64) -> Vec<bool> {
    let mut mask = vec![false; report.width * report.height];
    if mask.is_empty() {
        return mask;
    }
    for detection in &report.detections {
        let radius_px = width_in_sigmas * detection.sigma_px;
        if radius_px.is_finite() && radius_px >= 0.0 {
            paint(&mut mask, report.width, detection.segment, radius_px);
        }
    }
    mask
}

fn paint(mask: &mut [bool], width: usize, segment: Segment, radius_px: f64) {
    let (low, high) = min_max(segment.start.y, segment.end.y);
    for row_ix in pixels_between(low - radius_px, high + radius_px, mask.len() / width) {
        let y = row_ix as f64;
        let (left, right) = columns_near_row(segment, y, radius_px);
        for column_ix in pixels_between(left - radius_px, right + radius_px, width) {
            if segment.distance_to(Point::new(column_ix as f64, y)) <= radius_px {
                mask[row_ix * width + column_ix] = true;
            }
        }
    }
}

/// The range of x of the part of a segment that lies within `radius_px` of a row.
fn columns_near_row(segment: Segment, y: f64, radius_px: f64) -> (f64, f64) {
    let rise = segment.end.y - segment.start.y;
    if rise == 0.0 {
        return min_max(segment.start.x, segment.end.x);
    }
    let fraction = |offset: f64| ((y + offset - segment.start.y) / rise).clamp(0.0, 1.0);
    min_max(segment.at(fraction(-radius_px)).x, segment.at(fraction(radius_px)).x)
}

fn min_max(a: f64, b: f64) -> (f64, f64) {
    (a.min(b), a.max(b))
}

/// Indices of the pixels with centres from `low` to `high`, of `n`; none where a bound is not a number.
fn pixels_between(low: f64, high: f64, n: usize) -> std::ops::Range<usize> {
    // A cast of a float saturates: what lies below 0 or far out stays in range, and NaN gives an empty one.
    let first = low.ceil().max(0.0) as usize;
    let end = (high.floor() + 1.0) as usize;
    first.min(n)..end.min(n)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sample;

    /// The definition, pixel by pixel.
    fn naive(report: &Report, width_in_sigmas: f64) -> Vec<bool> {
        let near = |x: usize, y: usize| {
            let p = Point::new(x as f64, y as f64);
            report.detections.iter().any(|d| d.segment.distance_to(p) <= width_in_sigmas * d.sigma_px)
        };
        (0..report.height).flat_map(|y| (0..report.width).map(move |x| (x, y))).map(|(x, y)| near(x, y)).collect()
    }

    #[test]
    fn equals_the_definition() {
        let mut report = sample::report();
        for (x1, y1, x2, y2) in [
            (10.0, 10.0, 40.0, 30.0),
            (30.0, 5.0, 30.0, 35.0),
            (3.3, 39.7, 55.2, 2.1),
            (-20.0, 20.0, 90.0, 21.5),
            (12.5, 12.5, 12.5, 12.5),
            (-9.0, -9.0, -5.0, -5.0),
            (0.0, 0.0, 59.0, 39.0),
        ] {
            report.detections[0].segment = Segment::from_coordinates(x1, y1, x2, y2);
            for k in [0.0, 1.0, DEFAULT_WIDTH_IN_SIGMAS] {
                assert_eq!(affected(&report, k), naive(&report, k), "{x1} {y1} {x2} {y2}, {k} sigmas");
            }
        }
    }

    #[test]
    fn wild_positions_do_no_harm() {
        let mut report = sample::report();
        report.detections.truncate(1);
        report.detections[0].segment = Segment::from_coordinates(f64::NAN, 1.0, 1e300, f64::INFINITY);
        assert!(affected(&report, 3.0).len() == 2400);
        report.detections[0].sigma_px = f64::NAN;
        assert!(!affected(&report, 3.0).contains(&true));
    }
}
