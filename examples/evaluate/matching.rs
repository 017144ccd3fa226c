//! Which detection belongs to which streak.

use skystreak::{Detection, Segment, track_angle_difference};

/// The rule, for people.
pub(crate) const RULE: &str = "a detection belongs to a streak when it covers 30 % of its length, passes within \
    3 PSF widths (at least 3 px) of it in the middle of the common part, and points along it within 5 degrees or \
    atan(6 px / length)";

/// What the detections of one frame are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matches {
    /// For each streak its detection: of several, the one nearest at both ends.
    pub(crate) of_truth: Vec<Option<usize>>,
    /// For each streak all detections that belong to it.
    pub(crate) n_of_truth: Vec<usize>,
    /// Detections that belong to no streak.
    pub(crate) false_alarms: Vec<usize>,
}

/// Gives each streak its detections.
pub(crate) fn assign(truths: &[Segment], detections: &[Detection], psf_sigma_px: f64) -> Matches {
    let mut pairs: Vec<(f64, usize, usize)> = Vec::new();
    for (i, truth) in truths.iter().enumerate() {
        for (j, detection) in detections.iter().enumerate() {
            if belongs(&detection.segment, truth, psf_sigma_px) {
                pairs.push((ends_apart_px(&detection.segment, truth), i, j));
            }
        }
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut matches = Matches {
        of_truth: vec![None; truths.len()],
        n_of_truth: vec![0; truths.len()],
        false_alarms: (0..detections.len()).filter(|j| pairs.iter().all(|p| p.2 != *j)).collect(),
    };
    let mut taken = vec![false; detections.len()];
    for (_, i, j) in pairs {
        matches.n_of_truth[i] += 1;
        if matches.of_truth[i].is_none() && !taken[j] {
            taken[j] = true;
            matches.of_truth[i] = Some(j);
        }
    }
    matches
}

/// True when a segment found can be said to be this streak, or a part of it; see [`RULE`].
pub(crate) fn belongs(found: &Segment, truth: &Segment, psf_sigma_px: f64) -> bool {
    let length = truth.length_px();
    let ((u1, v1), (u2, v2)) = (truth.along_across(found.start), truth.along_across(found.end));
    let (first, last) = (u1.min(u2).max(0.0), u1.max(u2).min(length));
    if last - first < 0.3 * length {
        return false;
    }
    let middle = 0.5 * (first + last);
    let across = if (u2 - u1).abs() > 1e-9 { v1 + (v2 - v1) * (middle - u1) / (u2 - u1) } else { 0.5 * (v1 + v2) };
    let angle = track_angle_difference(found.angle_rad(), truth.angle_rad());
    across.abs() <= (3.0 * psf_sigma_px).max(3.0) && angle <= 5.0_f64.to_radians().max((6.0 / length).atan())
}

/// True when a segment comes within 3 PSF widths (at least 3 px) of a streak anywhere.
pub(crate) fn touches(found: &Segment, truth: &Segment, psf_sigma_px: f64) -> bool {
    let n = found.length_px().ceil().max(1.0);
    (0..=n as usize).any(|k| truth.distance_to(found.at(k as f64 / n)) <= (3.0 * psf_sigma_px).max(3.0))
}

/// Summed distance of both ends from the true ones, px.
pub(crate) fn ends_apart_px(found: &Segment, truth: &Segment) -> f64 {
    worst_and_sum(found, truth).1
}

/// Distance of the worse of both ends from the true one, px.
pub(crate) fn worst_end_px(found: &Segment, truth: &Segment) -> f64 {
    worst_and_sum(found, truth).0
}

/// χ² of four degrees of freedom that chance exceeds as seldom as a normal variable three standard deviations: 0.27 %.
pub(crate) const THREE_SIGMA: f64 = 16.25;

/// True when both ends together lie within a χ² of the true ones, by the covariance the detection states.
pub(crate) fn is_within_errors(found: &Detection, truth: &Segment, chi2: f64) -> bool {
    let (s, t) = (&found.segment, truth.ordered());
    let straight = [s.start.x - t.start.x, s.start.y - t.start.y, s.end.x - t.end.x, s.end.y - t.end.y];
    let turned = [s.start.x - t.end.x, s.start.y - t.end.y, s.end.x - t.start.x, s.end.y - t.start.y];
    [straight, turned].into_iter().any(|d| mahalanobis(&found.covariance_px2, d).is_some_and(|v| v <= chi2))
}

/// dᵀ C⁻¹ d by Gaussian elimination; none where the covariance is singular.
fn mahalanobis(covariance: &[[f64; 4]; 4], difference: [f64; 4]) -> Option<f64> {
    let mut rows: [[f64; 5]; 4] =
        std::array::from_fn(|i| std::array::from_fn(|j| if j < 4 { covariance[i][j] } else { difference[i] }));
    let mut sum = 0.0;
    for pivot in 0..4 {
        let row = rows[pivot];
        if row[pivot] <= 0.0 {
            return None;
        }
        sum += row[4] * row[4] / row[pivot];
        for other in &mut rows[pivot + 1..] {
            let factor = other[pivot] / row[pivot];
            other.iter_mut().zip(row).for_each(|(v, p)| *v -= factor * p);
        }
    }
    Some(sum)
}

fn worst_and_sum(found: &Segment, truth: &Segment) -> (f64, f64) {
    let straight = (found.start.distance(truth.start), found.end.distance(truth.end));
    let turned = (found.end.distance(truth.start), found.start.distance(truth.end));
    let best = if straight.0 + straight.1 <= turned.0 + turned.1 { straight } else { turned };
    (best.0.max(best.1), best.0 + best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_by_a_covariance_follow_the_closed_form() {
        // Two pairs of variance 2 and covariance 1: (a² − ab + b²) · 2/3 each.
        let covariance = [[2.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 2.0]];
        let of_pair = |a: f64, b: f64| (a * a - a * b + b * b) * 2.0 / 3.0;
        let found = mahalanobis(&covariance, [1.0, -0.5, 3.0, 2.0]).unwrap();
        assert!((found - of_pair(1.0, -0.5) - of_pair(3.0, 2.0)).abs() < 1e-12);
        assert_eq!(mahalanobis(&[[0.0; 4]; 4], [1.0; 4]), None);
    }
}
