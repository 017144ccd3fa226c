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

/// Adds to the covariance of the two ends what the Fisher information does not know. An end that was not seen, which
/// has no error along the track in it, may be anywhere beyond.
pub(crate) fn widen_ends(covariance: &mut EndCovariance, segment: &Segment, snr: f64, unseen: [bool; 2]) {
    let length = segment.length_px();
    let (c, s) = segment.direction();
    let across = [-s, c];
    let between = |a: usize, b: usize| -> f64 {
        (0..4).map(|k| across[k / 2] * covariance[2 * a + k / 2][2 * b + k % 2] * across[k % 2]).sum()
    };
    let (ends, both) = (between(0, 0) + between(1, 1), between(0, 1) + between(1, 0));
    let midpoint = 0.25 * (ends + both) * ACROSS_GROWTH / (snr * snr);
    let tilt = 0.25 * (ends - both) * ANGLE_GROWTH / (snr * snr);
    let floor = (CHANGE_POINT * length / (snr * snr)).powi(2);
    for (row, line) in covariance.iter_mut().enumerate() {
        for (column, element) in line.iter_mut().enumerate() {
            let (a, b) = (row / 2, column / 2);
            let added = if a == b { midpoint + tilt } else { midpoint - tilt };
            *element += added * across[row % 2] * across[column % 2];
            if a == b {
                let variance = if unseen[a] { floor + length * length } else { floor };
                let along = [c, s];
                *element += variance * along[row % 2] * along[column % 2];
            }
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
        widen_ends(&mut covariance, &segment, 10.0, [false, true]);
        let midpoint = [-0.5 * s, 0.5 * c, -0.5 * s, 0.5 * c];
        let tilt = [s, -c, -s, c];
        let growth = |of| variance(&covariance, of) / variance(&before, of);
        assert!((growth(midpoint) - 1.28).abs() < 1e-9 && (growth(tilt) - 1.4).abs() < 1e-9);
        let (first, second) = ([c, s, 0.0, 0.0], [0.0, 0.0, c, s]);
        let floor = (3.3 * 50.0 / 100.0_f64).powi(2);
        assert!((variance(&covariance, first) - 1.0 - floor).abs() < 1e-9);
        assert!((variance(&covariance, second) - 1.0 - floor - 2500.0).abs() < 1e-9, "not seen");
    }
}
