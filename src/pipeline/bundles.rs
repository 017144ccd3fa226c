//! Bundles: long lines that run along each other at small angles are drawn by structure in the sky, not by objects.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::geometry::{Segment, track_angle_difference};

/// Lines of a bundle are no shorter than this: an edge of light is long. A tile of the background is as wide.
const LEAST_PX: f64 = 64.0;

/// A line runs along another where this part of either lies no further than this from the other: lines that only cross do
/// not.
const NEAR_PX: f64 = 32.0;
const LEAST_PART: f64 = 0.35;

/// Their angles differ by no less than this and three of their errors, as those of objects in formation do not, and by no
/// more than this, as those of objects that meet by chance may.
const LEAST_ANGLE_RAD: f64 = 0.02;
const MOST_ANGLE_RAD: f64 = 0.6;

/// A line is one of a bundle with more others than this.
const MOST_OTHERS: usize = 3;

/// Others that have less than this part of its S/N do not count: a streak may cross a bundle.
const LEAST_SHARE: f64 = 1.0 / 3.0;

/// A detection as far as bundles go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line {
    pub(crate) segment: Segment,
    pub(crate) angle_err_rad: f64,
    pub(crate) snr: f64,
}

/// Which of some lines belong to a bundle.
pub(crate) fn are_bundled(lines: &[Line]) -> Vec<bool> {
    let long: Vec<&Line> = lines.iter().filter(|line| line.is_long()).collect();
    let is_bundled = |line: &Line| {
        let others = long.iter().filter(|other| other.snr > LEAST_SHARE * line.snr && line.runs_along(other));
        others.count() > MOST_OTHERS
    };
    lines.iter().map(|line| line.is_long() && is_bundled(line)).collect()
}

impl Line {
    fn is_long(&self) -> bool {
        self.segment.length_px() > LEAST_PX
    }

    /// At a small angle.
    fn runs_along(&self, other: &Self) -> bool {
        let apart_rad = track_angle_difference(self.segment.angle_rad(), other.segment.angle_rad());
        let least_rad = LEAST_ANGLE_RAD.max(3.0 * self.angle_err_rad.hypot(other.angle_err_rad));
        (least_rad..MOST_ANGLE_RAD).contains(&apart_rad)
            && lies_near(&self.segment, &other.segment)
            && lies_near(&other.segment, &self.segment)
    }
}

/// Enough of a segment is near another.
fn lies_near(segment: &Segment, other: &Segment) -> bool {
    let near = (0..=N_PLACES).filter(|k| other.distance_to(segment.at(*k as f64 / N_PLACES as f64)) < NEAR_PX);
    near.count() as f64 > LEAST_PART * N_PLACES as f64
}

/// Places on a segment that are looked at.
const N_PLACES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(x: f64, y: f64, length_px: f64, angle_rad: f64) -> Line {
        let segment = Segment::around(crate::geometry::Point::new(x, y), length_px, angle_rad);
        Line { segment, angle_err_rad: 0.002, snr: 15.0 }
    }

    #[test]
    fn lines_along_a_curved_edge_are_a_bundle() {
        // Chords of a circle of 1500 px around (2000, 500).
        let chord = |k: i32| {
            let at = 0.05 * f64::from(k);
            line(2000.0 - 1500.0 * at.cos(), 500.0 - 1500.0 * at.sin(), 300.0, at + std::f64::consts::FRAC_PI_2)
        };
        let mut lines: Vec<Line> = (-3..=3).map(chord).collect();
        let bright = Line { snr: 60.0, ..line(500.0, 500.0, 200.0, 1.4) };
        let short = line(500.0, 480.0, 40.0, 1.3);
        let crossing = line(500.0, 500.0, 300.0, 0.1);
        lines.extend([bright, short, crossing]);
        let bundled = are_bundled(&lines);
        assert_eq!(bundled[1..6], [true; 5], "{bundled:?}");
        assert_eq!(bundled[7..], [false; 3], "a bright one, a short one, one across: {bundled:?}");
    }

    #[test]
    fn objects_in_formation_are_none() {
        let train: Vec<Line> = (0..8).map(|k| line(300.0, 300.0 + 7.0 * f64::from(k), 250.0, 0.3)).collect();
        assert_eq!(are_bundled(&train), [false; 8]);
        let three: Vec<Line> = (0..4).map(|k| line(300.0, 300.0, 250.0, 0.15 * f64::from(k))).collect();
        assert_eq!(are_bundled(&three), [false; 4], "each with three others");
        let uncertain: Vec<Line> =
            (0..8).map(|k| Line { angle_err_rad: 0.2, ..line(300.0, 300.0, 250.0, 0.07 * f64::from(k)) }).collect();
        assert_eq!(are_bundled(&uncertain), [false; 8], "their angles may be the same");
    }
}
