//! Extended light: a galaxy or a nebula is bright along lines in every direction, a streak along one.
//!
//! Method: docs/algorithm.md, "Judge".

use crate::geometry::{Segment, track_angle_difference};

/// So many lines of no good fit that cross one make it extended light.
const MOST_CROSSING: usize = 3;

/// They are turned by no less than this, and not all the same way (what is left of star trails is), have this part of its S/N
/// at least, and a length within this factor of its own: of what a long streak crosses, or a bright one, nothing is said.
const LEAST_TURN_RAD: f64 = 0.2;
const LEAST_SHARE: f64 = 0.5;
const LIKE_LENGTH: f64 = 3.0;

/// Whether one line among some whose fits are poor, with their S/N, is a part of the same extended light.
pub(crate) fn is_part(line: &Segment, snr: f64, poor: &[(Segment, f64)]) -> bool {
    let crosses = |(other, other_snr): &&(Segment, f64)| {
        let longer = other.length_px() / line.length_px();
        *other_snr > LEAST_SHARE * snr
            && (1.0 / LIKE_LENGTH..LIKE_LENGTH).contains(&longer)
            && track_angle_difference(line.angle_rad(), other.angle_rad()) > LEAST_TURN_RAD
            && parts(line, other)
            && parts(other, line)
    };
    let crossing: Vec<f64> = poor.iter().filter(crosses).map(|(other, _)| other.angle_rad()).collect();
    let is_turned = |a: &f64| crossing.iter().any(|b| track_angle_difference(*a, *b) > LEAST_TURN_RAD);
    crossing.len() > MOST_CROSSING && crossing.iter().any(is_turned)
}

/// Whether the ends of a segment lie on either side of another's line.
fn parts(line: &Segment, other: &Segment) -> bool {
    line.along_across(other.start).1 * line.along_across(other.end).1 <= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    #[test]
    fn lines_in_every_direction_are_no_streaks() {
        let at = |angle_rad: f64, length_px: f64| Segment::around(Point::new(50.0, 40.0), length_px, angle_rad);
        let poor: Vec<(Segment, f64)> = (1..5).map(|k| (at(0.6 * f64::from(k), 20.0), 14.0)).collect();
        assert!(is_part(&at(0.0, 22.0), 18.0, &poor));
        assert!(!is_part(&at(0.0, 22.0), 18.0, &poor[1..]), "three may cross by chance");
        assert!(!is_part(&at(0.0, 90.0), 18.0, &poor), "a long streak across a galaxy");
        assert!(!is_part(&at(0.0, 22.0), 40.0, &poor), "a bright one");
        assert!(!is_part(&at(0.0, 22.0).moved_across(12.0), 18.0, &poor), "beside it");
        let across: Vec<(Segment, f64)> = (0..9).map(|k| (at(1.2 + 0.02 * f64::from(k), 20.0), 14.0)).collect();
        assert!(!is_part(&at(0.0, 22.0), 18.0, &across), "what is left of stars that trail");
        let along: Vec<(Segment, f64)> = (0..9).map(|k| (at(0.03 * f64::from(k), 20.0), 14.0)).collect();
        assert!(!is_part(&at(0.0, 22.0), 18.0, &along), "its own pieces");
    }
}
