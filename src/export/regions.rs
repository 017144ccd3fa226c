//! Regions for SAOImage DS9.

use std::fmt::Write;

use crate::{Detection, Kind, Point, Report, Role};

/// Radius of the circle around a point source, in units of its width.
const RADIUS_IN_SIGMAS: f64 = 5.0;

/// The detections of a frame as a DS9 region file in image coordinates (1-based).
///
/// Streaks are lines, points are circles; targets are green with their S/N, stars grey and dashed.
#[must_use]
pub fn ds9(report: &Report) -> String {
    let mut text = String::from("# Region file format: DS9 version 4.1\nimage\n");
    for d in &report.detections {
        let (shape, style) = (shape(d), style(d));
        writeln!(text, "{shape} # {style} text={{S/N {:.1}}}", d.snr).expect("writing to a string cannot fail");
    }
    text
}

fn shape(d: &Detection) -> String {
    match d.kind {
        Kind::Streak => {
            let ((x1, y1), (x2, y2)) = (image_coordinates(d.segment.start), image_coordinates(d.segment.end));
            format!("line({x1:.3},{y1:.3},{x2:.3},{y2:.3})")
        }
        Kind::Point => {
            let (x, y) = image_coordinates(d.midpoint());
            format!("circle({x:.3},{y:.3},{:.3})", RADIUS_IN_SIGMAS * d.sigma_px)
        }
    }
}

fn style(d: &Detection) -> &'static str {
    match d.role {
        Role::Target => "color=green",
        Role::Star => "color=gray dash=1",
    }
}

/// DS9 counts from 1.
fn image_coordinates(p: Point) -> (f64, f64) {
    (p.x + 1.0, p.y + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::sample;

    #[test]
    fn coordinates_count_from_one() {
        let text = ds9(&sample::report());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1..],
            [
                "image",
                "line(11.000,11.000,41.000,31.000) # color=green text={S/N 42.2}",
                "circle(51.000,6.000,7.500) # color=green text={S/N 20.0}",
                "line(6.000,36.000,26.000,36.000) # color=gray dash=1 text={S/N 10.0}",
            ]
        );
    }
}
