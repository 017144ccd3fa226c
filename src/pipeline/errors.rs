//! From the Fisher information of a fit to errors that hold: what faint trails add to it.
//!
//! Method: docs/algorithm.md, "Measure".

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use crate::detection::{AlongIntervals, EndCovariance};
use crate::geometry::Segment;
use crate::pipeline::ends::AlongErrors;

/// An end of a faint trail is a change point, which lies off by so many length / SNR²: the rms, √26. Most ends lie
/// nearer, a few far off: the 68 % interval has a half-width of 3.0 for one end, and of √2 · 3.7 for the sum and the
/// difference of two. Variances add to that of the bound, for these intervals the cubes of their half-widths do (measured).
const CHANGE_POINT_RMS: f64 = 5.1;
const CHANGE_POINT_68: f64 = 3.0;
const CHANGE_POINTS_68: f64 = 3.7;

/// Variances grow by 1 + k / SNR², the next term after the bound: of the midpoint across, and of the angle. Measured
/// (docs/accuracy.md).
const ACROSS_GROWTH: f64 = 28.0;
const ANGLE_GROWTH: f64 = 40.0;

/// The same of the ends along the track; where the likelihood was asked, which takes the fitted line for the true one,
/// by k / SNR⁴ more.
const ALONG_GROWTH: f64 = 10.0;
const LIKELIHOOD_GROWTH: f64 = 1_000.0;

/// Of the PSF width, by 1 + k / SNR².
const WIDTH_GROWTH: f64 = 20.0;

/// Error of the PSF width of a trail whose pixels say it to `err_px`.
pub(crate) fn widen_width(err_px: f64, snr: f64) -> f64 {
    err_px * (1.0 + WIDTH_GROWTH / (snr * snr)).sqrt()
}

/// Adds to the covariance of the two ends what the Fisher information does not know: across the track by S/N, along it
/// what the likelihood of the ends says where that was looked at, else by S/N too. An end that was not seen, which has no
/// error along the track in it, may be so far off.
pub(crate) fn widen_ends(
    covariance: &mut EndCovariance,
    segment: &Segment,
    snr: f64,
    unseen_px: [f64; 2],
    along: Option<&AlongErrors>,
) {
    let length = segment.length_px();
    let (c, s) = segment.direction();
    let (ahead, across) = ([c, s], [-s, c]);
    let between = |way: [f64; 2], a: usize, b: usize| -> f64 {
        (0..4).map(|k| way[k / 2] * covariance[2 * a + k / 2][2 * b + k % 2] * way[k % 2]).sum()
    };
    let [ends, both] = [[0, 1], [1, 0]].map(|[a, b]| between(across, 0, a) + between(across, 1, b));
    let midpoint = 0.25 * (ends + both) * ACROSS_GROWTH / (snr * snr);
    let tilt = 0.25 * (ends - both) * ANGLE_GROWTH / (snr * snr);
    let floor = (CHANGE_POINT_RMS * length / (snr * snr)).powi(2);
    let added_along = match along {
        Some(AlongErrors { covariance_px2: known, .. }) => {
            // What is known of the ends may not be less than the fit's covariance, or that is none any more.
            let more = |a: usize, b: usize| likelihood_growth(snr) * known[a][b] - between(ahead, a, b);
            positive_part([[more(0, 0), more(0, 1)], [more(1, 0), more(1, 1)]])
        }
        None => [[floor, 0.0], [0.0, floor]],
    };
    for (row, line) in covariance.iter_mut().enumerate() {
        for (column, element) in line.iter_mut().enumerate() {
            let (a, b) = (row / 2, column / 2);
            let added = if a == b { midpoint + tilt } else { midpoint - tilt };
            *element += added * across[row % 2] * across[column % 2];
            let unseen = if a == b { unseen_px[a] * unseen_px[a] } else { 0.0 };
            *element += (added_along[a][b] + unseen) * ahead[row % 2] * ahead[column % 2];
        }
    }
}

/// The 68 % intervals along the track, from the covariance of the fit: as [`widen_ends`], of what lies in the middle of
/// the distribution.
pub(crate) fn along_68(
    of_fit: &EndCovariance,
    segment: &Segment,
    snr: f64,
    unseen_px: [f64; 2],
    along: Option<&AlongErrors>,
) -> AlongIntervals {
    let length = segment.length_px();
    let seen = match along {
        Some(along) => along.half_68_px.map(|half| half * likelihood_growth(snr).sqrt()),
        None => {
            let [one, two] = [CHANGE_POINT_68, CHANGE_POINTS_68].map(|c| c * length / (snr * snr));
            let change_points = AlongIntervals {
                start_px: one,
                end_px: one,
                midpoint_px: two * FRAC_1_SQRT_2,
                length_px: two * SQRT_2,
            };
            let together = |bound: f64, change_point: f64| (bound.powi(3) + change_point.powi(3)).cbrt();
            AlongIntervals::of_normal_errors(segment, of_fit)
                .zip(change_points, together)
                .map(|half| half * (1.0 + ALONG_GROWTH / (snr * snr)).sqrt())
        }
    };
    let [start_px, end_px] = unseen_px;
    let both = start_px.hypot(end_px);
    seen.zip(AlongIntervals { start_px, end_px, midpoint_px: 0.5 * both, length_px: both }, f64::hypot)
}

/// Of variances along the track that come from the likelihood.
fn likelihood_growth(snr: f64) -> f64 {
    1.0 + ALONG_GROWTH / (snr * snr) + LIKELIHOOD_GROWTH / snr.powi(4)
}

/// A symmetric matrix without its negative eigenvalues.
fn positive_part([[a, b], [_, d]]: [[f64; 2]; 2]) -> [[f64; 2]; 2] {
    let (middle, radius) = (0.5 * (a + d), (0.5 * (a - d)).hypot(b));
    let angle = 0.5 * b.atan2(0.5 * (a - d));
    let (s, c) = angle.sin_cos();
    let [first, second] = [middle + radius, middle - radius].map(|v| v.max(0.0));
    let between = (first - second) * s * c;
    [[first * c * c + second * s * s, between], [between, first * s * s + second * c * c]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn along(covariance_px2: [[f64; 2]; 2]) -> AlongErrors {
        let half_68_px = AlongIntervals { start_px: 2.0, end_px: 1.5, midpoint_px: 1.0, length_px: 2.5 };
        AlongErrors { covariance_px2, half_68_px }
    }

    fn variance(covariance: &EndCovariance, of: [f64; 4]) -> f64 {
        (0..16).map(|k| of[k / 4] * covariance[k / 4][k % 4] * of[k % 4]).sum()
    }

    #[test]
    fn each_error_grows_by_its_own_term() {
        let segment = Segment::from_coordinates(10.0, 20.0, 40.0, 60.0);
        let (c, s) = segment.direction();
        // Ends of variance 1 in every direction, the second one's errors half those of the first.
        let mut covariance = [[0.0; 4]; 4];
        for (i, row) in covariance.iter_mut().enumerate() {
            row[i] = 1.0;
            row[(i + 2) % 4] = 0.5;
        }
        let before = covariance;
        let half = along_68(&covariance, &segment, 10.0, [0.0, segment.length_px()], None);
        widen_ends(&mut covariance, &segment, 10.0, [0.0, segment.length_px()], None);
        let midpoint = [-0.5 * s, 0.5 * c, -0.5 * s, 0.5 * c];
        let tilt = [s, -c, -s, c];
        let growth = |covariance: &EndCovariance, of| variance(covariance, of) / variance(&before, of);
        assert!((growth(&covariance, midpoint) - 1.28).abs() < 1e-9 && (growth(&covariance, tilt) - 1.4).abs() < 1e-9);
        let (first, second) = ([c, s, 0.0, 0.0], [0.0, 0.0, c, s]);
        let floor = (5.1 * 50.0 / 100.0_f64).powi(2);
        assert!((variance(&covariance, first) - 1.0 - floor).abs() < 1e-9);
        assert!((variance(&covariance, second) - 1.0 - floor - 2500.0).abs() < 1e-9, "not seen");
        assert!((variance(&covariance, [c, s, c, s]) - 3.0 - 2.0 * floor - 2500.0).abs() < 1e-9);
        // 68 % of the ends lie within 3.0 · 50 / 100, of sums and differences of two within √2 · 3.7 · 50 / 100.
        let with = |bound: f64, change_point: f64| (1.1_f64).sqrt() * (bound.powi(3) + change_point.powi(3)).cbrt();
        assert!((half.start_px - with(1.0, 1.5)).abs() < 1e-9);
        assert!((half.end_px - with(1.0, 1.5).hypot(50.0)).abs() < 1e-9);
        assert!((half.midpoint_px - with(0.75_f64.sqrt(), 1.85 / SQRT_2).hypot(25.0)).abs() < 1e-9);
        assert!((half.length_px - with(1.0, 1.85 * SQRT_2).hypot(50.0)).abs() < 1e-9);

        let grown = 1.2;
        let mut covariance = before;
        let known = along([[9.0, -2.0], [-2.0, 4.0]]);
        let half = along_68(&covariance, &segment, 10.0, [0.0; 2], Some(&known));
        widen_ends(&mut covariance, &segment, 10.0, [0.0; 2], Some(&known));
        assert!((growth(&covariance, midpoint) - 1.28).abs() < 1e-9);
        assert!((variance(&covariance, first) - grown * 9.0).abs() < 1e-9);
        assert!((variance(&covariance, second) - grown * 4.0).abs() < 1e-9);
        assert!((variance(&covariance, [c, s, c, s]) - grown * 9.0).abs() < 1e-9, "9 + 4 - 2 · 2");
        assert!(
            (half.start_px - 2.0 * grown.sqrt()).abs() < 1e-9 && (half.length_px - 2.5 * grown.sqrt()).abs() < 1e-9
        );
    }

    #[test]
    fn no_direction_loses_its_variance() {
        // Errors along and across belong together, of opposite sign at the two ends.
        let mut covariance = [[0.0; 4]; 4];
        for (i, row) in covariance.iter_mut().enumerate() {
            row[i] = 1.0;
            row[i ^ 1] = if i < 2 { 0.5 } else { -0.5 };
        }
        let before = covariance;
        let segment = Segment::from_coordinates(0.0, 0.0, 50.0, 0.0);
        widen_ends(&mut covariance, &segment, 15.0, [0.0; 2], Some(&along([[0.6, 0.57], [0.57, 1.4]])));
        for k in 0..10_000 {
            let of: [f64; 4] = std::array::from_fn(|i| (f64::from(k) * (i as f64 + 0.618)).sin());
            assert!(variance(&covariance, of) >= variance(&before, of) - 1e-12);
        }
        let [[a, b], [_, d]] = positive_part([[1.0, 2.0], [2.0, 1.0]]);
        assert!([a, b, d].iter().all(|v| (v - 1.5).abs() < 1e-12), "3 stays, -1 goes");
        assert_eq!(positive_part([[-1.0, 0.0], [0.0, 2.0]])[1][1], 2.0);
    }
}
