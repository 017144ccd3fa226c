//! Points, segments and angles; no image access.
//!
//! Pixel (0, 0) has its centre at (0.0, 0.0), `x` runs along a row. Angles are radians from +x towards +y.

use std::f64::consts::PI;

/// A position in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// Along a row.
    pub x: f64,
    /// Along a column.
    pub y: f64,
}

impl Point {
    /// The point (x, y).
    #[must_use]
    pub const fn new(x: f64, y: f64) -> Self {
        Self { x, y }
    }

    /// Distance to another point, px.
    #[must_use]
    pub fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }
}

/// A line segment between two ends, without a direction in time.
///
/// ```
/// use skystreak::{Point, Segment};
///
/// let s = Segment::new(Point::new(10.0, 5.0), Point::new(4.0, 13.0));
/// assert_eq!(s.length_px(), 10.0);
/// assert_eq!(s.midpoint(), Point::new(7.0, 9.0));
/// assert_eq!(s.ordered().start, Point::new(4.0, 13.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Segment {
    /// One end.
    pub start: Point,
    /// The other end.
    pub end: Point,
}

impl Segment {
    /// The segment between two points.
    #[must_use]
    pub const fn new(start: Point, end: Point) -> Self {
        Self { start, end }
    }

    /// The segment between (x1, y1) and (x2, y2).
    #[must_use]
    pub const fn from_coordinates(x1: f64, y1: f64, x2: f64, y2: f64) -> Self {
        Self::new(Point::new(x1, y1), Point::new(x2, y2))
    }

    /// The segment of a given length and angle (rad) around a midpoint.
    #[must_use]
    pub fn around(midpoint: Point, length_px: f64, angle_rad: f64) -> Self {
        let (s, c) = angle_rad.sin_cos();
        let (dx, dy) = (0.5 * length_px * c, 0.5 * length_px * s);
        Self::from_coordinates(midpoint.x - dx, midpoint.y - dy, midpoint.x + dx, midpoint.y + dy)
    }

    /// The same segment with the end of smaller x (then y) first.
    #[must_use]
    pub fn ordered(self) -> Self {
        if (self.end.x, self.end.y) < (self.start.x, self.start.y) { Self::new(self.end, self.start) } else { self }
    }

    /// Length, px.
    #[must_use]
    pub fn length_px(&self) -> f64 {
        self.start.distance(self.end)
    }

    /// The point half way.
    #[must_use]
    pub fn midpoint(&self) -> Point {
        self.at(0.5)
    }

    /// The point at a fraction of the way from start to end.
    #[must_use]
    pub fn at(&self, fraction: f64) -> Point {
        Point::new(
            self.start.x + fraction * (self.end.x - self.start.x),
            self.start.y + fraction * (self.end.y - self.start.y),
        )
    }

    /// Angle of the track from +x towards +y, in [0, π).
    #[must_use]
    pub fn angle_rad(&self) -> f64 {
        let angle = (self.end.y - self.start.y).atan2(self.end.x - self.start.x).rem_euclid(PI);
        // rem_euclid rounds tiny negative angles up to π itself.
        if angle >= PI { 0.0 } else { angle }
    }

    /// Unit vector from start to end; +x for a segment of no length.
    #[must_use]
    pub fn direction(&self) -> (f64, f64) {
        let length = self.length_px();
        if length > 0.0 {
            ((self.end.x - self.start.x) / length, (self.end.y - self.start.y) / length)
        } else {
            (1.0, 0.0)
        }
    }

    /// Coordinates of a point along (from the start) and across this segment's line, px.
    #[must_use]
    pub fn along_across(&self, p: Point) -> (f64, f64) {
        self.along_across_in(self.direction(), p)
    }

    /// The same where the direction is at hand.
    pub(crate) fn along_across_in(&self, (c, s): (f64, f64), p: Point) -> (f64, f64) {
        let (dx, dy) = (p.x - self.start.x, p.y - self.start.y);
        (dx * c + dy * s, -dx * s + dy * c)
    }

    /// Distance of a point from the segment itself (not from its line), px.
    #[must_use]
    pub fn distance_to(&self, p: Point) -> f64 {
        let (u, v) = self.along_across(p);
        let beyond = (-u).max(u - self.length_px()).max(0.0);
        beyond.hypot(v)
    }

    /// The segment made longer by `start_px` and `end_px` at its ends (shorter where negative).
    #[must_use]
    pub fn extended(&self, start_px: f64, end_px: f64) -> Self {
        let (c, s) = self.direction();
        Self::from_coordinates(
            self.start.x - start_px * c,
            self.start.y - start_px * s,
            self.end.x + end_px * c,
            self.end.y + end_px * s,
        )
    }

    /// The parallel segment so far beside this one, px: towards its direction turned from +x to +y.
    pub(crate) fn moved_across(&self, offset_px: f64) -> Self {
        let (c, s) = self.direction();
        let moved = |p: Point| Point::new(p.x - s * offset_px, p.y + c * offset_px);
        Self::new(moved(self.start), moved(self.end))
    }

    /// The part inside the pixel area of a frame (pixel edges at -0.5 and width - 0.5), if any.
    #[must_use]
    pub fn clipped_to(&self, width: usize, height: usize) -> Option<Self> {
        self.clipped_near(width, height, 0.0)
    }

    /// The part within a frame and a margin around it, or none.
    pub(crate) fn clipped_near(&self, width: usize, height: usize, margin_px: f64) -> Option<Self> {
        let (dx, dy) = (self.end.x - self.start.x, self.end.y - self.start.y);
        let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
        let first = -0.5 - margin_px;
        let (right, bottom) = (width as f64 - 0.5 + margin_px, height as f64 - 0.5 + margin_px);
        // Liang-Barsky: each border moves the entry or the exit along the segment.
        for (step, room) in [
            (-dx, self.start.x - first),
            (dx, right - self.start.x),
            (-dy, self.start.y - first),
            (dy, bottom - self.start.y),
        ] {
            if step == 0.0 {
                if room < 0.0 {
                    return None;
                }
            } else if step < 0.0 {
                enter = enter.max(room / step);
            } else {
                leave = leave.min(room / step);
            }
        }
        (enter <= leave).then(|| Self::new(self.at(enter), self.at(leave)))
    }
}

/// Difference of two track angles, in [0, π/2]: tracks have no direction.
///
/// ```
/// use std::f64::consts::PI;
/// assert!((skystreak::track_angle_difference(0.1, PI - 0.1) - 0.2).abs() < 1e-12);
/// ```
#[must_use]
pub fn track_angle_difference(a: f64, b: f64) -> f64 {
    let d = (a - b).rem_euclid(PI);
    d.min(PI - d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_at_pixel_edges() {
        let s = Segment::from_coordinates(-10.0, 5.0, 30.0, 5.0).clipped_to(20, 10).unwrap();
        assert!((s.start.x + 0.5).abs() < 1e-12 && (s.end.x - 19.5).abs() < 1e-12);
        assert_eq!(Segment::from_coordinates(-10.0, 50.0, 30.0, 50.0).clipped_to(20, 10), None);
    }

    #[test]
    fn distance_counts_the_ends() {
        let s = Segment::from_coordinates(0.0, 0.0, 10.0, 0.0);
        assert_eq!(s.distance_to(Point::new(13.0, 4.0)), 5.0);
        assert_eq!(s.distance_to(Point::new(5.0, -2.0)), 2.0);
    }

    #[test]
    fn angles_lie_in_half_a_turn() {
        for (dx, dy) in [(1.0, 0.0), (-1.0, 0.0), (1.0, -1e-20), (0.0, -1.0), (-3.0, 4.0)] {
            let a = Segment::from_coordinates(0.0, 0.0, dx, dy).angle_rad();
            assert!((0.0..PI).contains(&a), "{dx} {dy}: {a}");
        }
    }
}
