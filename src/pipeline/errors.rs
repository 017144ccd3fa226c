//! From the Fisher information of a fit to errors that hold: what faint trails add to it.
//!
//! Method: docs/algorithm.md, "Measure".

use crate::detection::EndCovariance;
use crate::geometry::Segment;

/// An end of a faint trail is a change point, which lies off by so many length / SNR². Most ends lie nearer than the
/// rms (√26), a few far off: the 68 % interval has a half-width of 3.0 for one end, and of √2 · 3.7 for the length, the
/// difference of two. One covariance has to serve both.
const CHANGE_POINT: f64 = 3.3;

/// Variances grow by 1 + k / SNR², the next term after the bound: of the midpoint across, and of the angle. Measured
/// (docs/accuracy.md).
const ACROSS_GROWTH: f64 = 28.0;
const ANGLE_GROWTH: f64 = 40.0;

/// The same of what the likelihood says of the ends along the track: it looks along the fitted line, as if that were
/// known.
const ALONG_GROWTH: f64 = 10.0;

/// Adds to the covariance of the two ends what the Fisher information does not know: across the track by S/N, along it
/// what the likelihood of the ends says where that was looked at, else by S/N too. An end that was not seen, which has no
/// error along the track in it, may be anywhere beyond.
pub(crate) fn widen_ends(
    covariance: &mut EndCovariance,
    segment: &Segment,
    snr: f64,
    unseen: [bool; 2],
    along_px2: Option<[[f64; 2]; 2]>,
) {
    let length = segment.length_px();
    let (c, s) = segment.direction();
    let (along, across) = ([c, s], [-s, c]);
    let between = |way: [f64; 2], a: usize, b: usize| -> f64 {
        (0..4).map(|k| way[k / 2] * covariance[2 * a + k / 2][2 * b + k % 2] * way[k % 2]).sum()
    };
    let [ends, both] = [[0, 1], [1, 0]].map(|[a, b]| between(across, 0, a) + between(across, 1, b));
    let midpoint = 0.25 * (ends + both) * ACROSS_GROWTH / (snr * snr);
    let tilt = 0.25 * (ends - both) * ANGLE_GROWTH / (snr * snr);
    let floor = (CHANGE_POINT * length / (snr * snr)).powi(2);
    let grown = 1.0 + ALONG_GROWTH / (snr * snr);
    let added_along = match along_px2 {
        Some(known) => {
            // What is known of the ends may not be less than the fit's covariance, or that is none any more.
            let more = |a: usize, b: usize| grown * known[a][b] - between(along, a, b);
            positive_part([[more(0, 0), more(0, 1)], [more(1, 0), more(1, 1)]])
        }
        None => [[floor, 0.0], [0.0, floor]],
    };
    for (row, line) in covariance.iter_mut().enumerate() {
        for (column, element) in line.iter_mut().enumerate() {
            let (a, b) = (row / 2, column / 2);
            let added = if a == b { midpoint + tilt } else { midpoint - tilt };
            *element += added * across[row % 2] * across[column % 2];
            let unseen = if a == b && unseen[a] { length * length } else { 0.0 };
            *element += (added_along[a][b] + unseen) * along[row % 2] * along[column % 2];
        }
    }
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
        widen_ends(&mut covariance, &segment, 10.0, [false, true], None);
        let midpoint = [-0.5 * s, 0.5 * c, -0.5 * s, 0.5 * c];
        let tilt = [s, -c, -s, c];
        let growth = |covariance: &EndCovariance, of| variance(covariance, of) / variance(&before, of);
        assert!((growth(&covariance, midpoint) - 1.28).abs() < 1e-9 && (growth(&covariance, tilt) - 1.4).abs() < 1e-9);
        let (first, second) = ([c, s, 0.0, 0.0], [0.0, 0.0, c, s]);
        let floor = (3.3 * 50.0 / 100.0_f64).powi(2);
        assert!((variance(&covariance, first) - 1.0 - floor).abs() < 1e-9);
        assert!((variance(&covariance, second) - 1.0 - floor - 2500.0).abs() < 1e-9, "not seen");
        assert!((variance(&covariance, [c, s, c, s]) - 3.0 - 2.0 * floor - 2500.0).abs() < 1e-9);

        let mut covariance = before;
        widen_ends(&mut covariance, &segment, 10.0, [false; 2], Some([[9.0, -2.0], [-2.0, 4.0]]));
        assert!((growth(&covariance, midpoint) - 1.28).abs() < 1e-9);
        assert!((variance(&covariance, first) - 1.1 * 9.0).abs() < 1e-9);
        assert!((variance(&covariance, second) - 1.1 * 4.0).abs() < 1e-9);
        assert!((variance(&covariance, [c, s, c, s]) - 1.1 * 9.0).abs() < 1e-9, "9 + 4 - 2 · 2");
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
        widen_ends(&mut covariance, &segment, 15.0, [false; 2], Some([[0.6, 0.57], [0.57, 1.4]]));
        for k in 0..10_000 {
            let of: [f64; 4] = std::array::from_fn(|i| (f64::from(k) * (i as f64 + 0.618)).sin());
            assert!(variance(&covariance, of) >= variance(&before, of) - 1e-12);
        }
        let [[a, b], [_, d]] = positive_part([[1.0, 2.0], [2.0, 1.0]]);
        assert!([a, b, d].iter().all(|v| (v - 1.5).abs() < 1e-12), "3 stays, -1 goes");
        assert_eq!(positive_part([[-1.0, 0.0], [0.0, 2.0]])[1][1], 2.0);
    }
}
