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

/// The same of what the likelihood says of an end along the track: it looks along the fitted line, as if that were known.
const ALONG_GROWTH: f64 = 14.0;

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
    let added_along: [[f64; 2]; 2] = std::array::from_fn(|a| {
        std::array::from_fn(|b| {
            let fitted = between(along, a, b);
            match along_px2 {
                // Never less than the fit's own.
                Some(known) if a == b => (grown * known[a][b] - fitted).max(0.0),
                Some(known) => grown * known[a][b] - fitted,
                None if a == b => floor,
                None => 0.0,
            }
        })
    });
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
        widen_ends(&mut covariance, &segment, 10.0, [false; 2], Some([[9.0, -2.0], [-2.0, 0.5]]));
        assert!((growth(&covariance, midpoint) - 1.28).abs() < 1e-9);
        assert!(
            (variance(&covariance, first) - 9.0).abs() < 1e-9 && (variance(&covariance, second) - 1.0).abs() < 1e-9
        );
        assert!((variance(&covariance, [c, s, c, s]) - 6.0).abs() < 1e-9, "9 + 1 - 2 · 2");
    }
}
