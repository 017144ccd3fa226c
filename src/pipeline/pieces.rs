//! Merge stage, its last step: which trails are pieces of one streak.
//!
//! Method: docs/algorithm.md, "Merge".

use crate::Result;
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::measure::{FitRequest, Trail};
use crate::pipeline::merge::Search;
use crate::pipeline::tracking;
use crate::report::TrackingMode;

/// A joint trail must keep this fraction of the two pieces' S/N²: a gap of two thirds of the light is forgiven.
pub(crate) const MIN_JOINT_POWER: f64 = 0.6;

/// Pieces whose ends are further apart than this many PSF widths have more between them than a bend or a star.
const FAR_WIDTHS: f64 = 10.0;

impl Search<'_> {
    /// Tells stars' trails in a blend apart, and joins pieces of one streak.
    pub(crate) fn split_and_join(&mut self, believed: &mut Vec<Believed>) -> Result<()> {
        let mode = self.mode_of(believed);
        self.split_blends(believed, &mode)?;
        self.join_pieces(believed, &mode)
    }

    /// Where a single trail explains two collinear ones nearly as well, it takes their place. A star's trail is whole:
    /// it may follow another one, but is no piece of it.
    fn join_pieces(&mut self, believed: &mut Vec<Believed>, mode: &TrackingMode) -> Result<()> {
        let settings = self.peel_settings();
        let is_star = |b: &Believed| b.origin == Origin::Parted || tracking::is_star(mode, &b.as_seen());
        let mut refused: Vec<(Segment, Segment)> = Vec::new();
        'search: loop {
            let others: Vec<usize> = (0..believed.len()).filter(|&i| !is_star(&believed[i])).collect();
            for (n, &i) in others.iter().enumerate() {
                for &j in &others[n + 1..] {
                    let (a, b) = (believed[i].trail(), believed[j].trail());
                    let snrs = [believed[i].fit.snr, believed[j].fit.snr];
                    let Some(span) = joint_span([&a, &b], snrs) else { continue };
                    if refused.contains(&(a.segment, b.segment)) {
                        continue;
                    }
                    self.backend.add_trails(&[a, b], 1.0)?;
                    let start = Trail { segment: span, flux: a.flux + b.flux, ..a };
                    let fit = self.backend.fit(&[FitRequest { start, subtracted: false }], &settings)?[0];
                    let separate = believed[i].fit.snr.powi(2) + believed[j].fit.snr.powi(2);
                    let covers = fit.trail.segment.length_px() > 0.8 * span.length_px();
                    if fit.snr.powi(2) >= MIN_JOINT_POWER * separate && covers {
                        self.backend.add_trails(&[fit.trail], -1.0)?;
                        believed[i] = Believed::new(fit, Origin::Joined);
                        believed.remove(j);
                        continue 'search;
                    }
                    self.backend.add_trails(&[a, b], -1.0)?;
                    refused.push((a.segment, b.segment));
                }
            }
            return Ok(());
        }
    }
}

/// Slack of angle and place of near pieces: a direction is known to about a PSF width over the length, and a track may
/// bend.
fn near_slack(sigma: f64, gap: f64, long_px: f64, short_px: f64) -> [f64; 2] {
    [1.5 * sigma / short_px + 0.01, 2.0 * sigma * (1.0 + (gap.max(0.0) + 0.5 * short_px) / long_px)]
}

/// The segment from the outer end of one trail to that of the other, where they could be pieces of one.
fn joint_span([a, b]: [&Trail; 2], snrs: [f64; 2]) -> Option<Segment> {
    let (long, short) = if a.segment.length_px() >= b.segment.length_px() { (a, b) } else { (b, a) };
    let sigma = a.sigma_eff_px;
    let (long_px, short_px) = (long.segment.length_px(), short.segment.length_px());
    let ((u1, v1), (u2, v2)) =
        (long.segment.along_across(short.segment.start), long.segment.along_across(short.segment.end));
    let (near, far) = (u1.min(u2), u1.max(u2));
    let gap = (near - long_px).max(-far);
    let (angle_slack, lateral_slack) = if gap > FAR_WIDTHS * sigma {
        // Far apart they have to be in line to within their errors: two objects may well be nearly so.
        let angle_err = |trail: &Trail, snr: f64| 24_f64.sqrt() * sigma / (trail.segment.length_px() * snr);
        let errs = [angle_err(a, snrs[0]), angle_err(b, snrs[1])];
        let of_long = if std::ptr::eq(long, a) { errs[0] } else { errs[1] };
        let across_err = 2_f64.sqrt() * sigma * (1.0 / snrs[0]).hypot(1.0 / snrs[1]);
        let lever = gap + 0.5 * (long_px + short_px);
        let lateral = 0.5 * sigma + 3.0 * across_err.hypot(lever * of_long);
        let [near_angle, near_lateral] = near_slack(sigma, gap, long_px, short_px);
        ((0.01 + 3.0 * errs[0].hypot(errs[1])).min(near_angle), lateral.min(near_lateral))
    } else if gap > -0.5 * short_px {
        near_slack(sigma, gap, long_px, short_px).into()
    } else {
        // What lies beside is another streak.
        (1.5 * sigma / short_px + 0.01, sigma)
    };
    let collinear = track_angle_difference(long.segment.angle_rad(), short.segment.angle_rad()) < angle_slack
        && (0.5 * (v1 + v2)).abs() < lateral_slack;
    if !collinear || gap > long_px.max(30.0) {
        return None;
    }
    let ends = [long.segment.start, long.segment.end, short.segment.start, short.segment.end];
    let along = |p: &Point| long.segment.along_across(*p).0;
    let first = ends.into_iter().min_by(|p, q| along(p).total_cmp(&along(q)))?;
    let last = ends.into_iter().max_by(|p, q| along(p).total_cmp(&along(q)))?;
    Some(Segment::new(first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(x1: f64, y1: f64, x2: f64, y2: f64) -> Trail {
        Trail { segment: Segment::from_coordinates(x1, y1, x2, y2), flux: 1.0, background: 0.0, sigma_eff_px: 1.5 }
    }

    #[test]
    fn pieces_of_a_line_span_it() {
        let span_of = |a: Trail, b: Trail| joint_span([&a, &b], [15.0, 10.0]);
        let line = trail(0.0, 0.0, 40.0, 0.0);
        let span = span_of(line, trail(60.0, 0.5, 90.0, 0.2)).unwrap();
        assert_eq!((span.start.x, span.end.x), (0.0, 90.0));
        assert!(span_of(line, trail(48.0, 2.5, 88.0, 3.5)).is_some(), "near pieces of a bent track");
        assert!(span_of(line, trail(70.0, 6.0, 110.0, 6.0)).is_none(), "far pieces, 6 px beside");
        let short = trail(150.0, 6.0, 160.0, 6.0);
        assert!(joint_span([&trail(0.0, 0.0, 100.0, 0.0), &short], [30.0, 7.0]).is_none(), "a short far piece");
        assert!(span_of(line, trail(60.0, 8.0, 90.0, 8.0)).is_none(), "parallel, 8 px apart");
        assert!(span_of(line, trail(20.0, -20.0, 20.0, 20.0)).is_none(), "crossing");
        assert!(span_of(line, trail(200.0, 0.0, 240.0, 0.0)).is_none(), "far apart");
        let inside = span_of(trail(0.0, 0.0, 90.0, 0.0), trail(1.0, 0.4, 88.0, -0.2)).unwrap();
        assert_eq!((inside.start.x, inside.end.x), (0.0, 90.0), "the flashes of one streak");
        assert!(span_of(trail(0.0, 0.0, 90.0, 0.0), trail(1.0, 2.5, 88.0, 2.5)).is_none(), "side by side");
    }
}
