//! Merge stage, its last step: which trails are pieces of one streak, and which are two stars' in a row.
//!
//! Method: docs/algorithm.md, "Merge".

use crate::Result;
use crate::backend::TrackProfile;
use crate::detection::TrackingMode;
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::measure::{FitRequest, Trail};
use crate::pipeline::merge::{Believed, Search};
use crate::pipeline::tracking::{self, Seen};

/// A joint trail must keep this fraction of the two pieces' S/N²: a gap as long as half the light is forgiven.
const MIN_JOINT_POWER: f64 = 0.6;

/// Two stars in a row must be better than the trail over both by this much in S/N²: what two ends more may win of
/// noise alone.
const MIN_SPLIT_GAIN: f64 = 9.0;

impl Search<'_> {
    /// Joins pieces of one streak, and tells stars' trails in a row apart.
    pub(crate) fn join_and_split(&mut self, believed: &mut Vec<Believed>) -> Result<()> {
        let mode = tracking::decide(self.tracking, &believed.iter().map(as_seen).collect::<Vec<_>>());
        if let TrackingMode::Rate { star_length_px, star_angle_rad, .. } = mode {
            self.split_stars(believed, star_length_px, star_angle_rad)?;
        }
        self.join_pieces(believed, &mode)
    }

    /// Where a single trail explains two collinear ones nearly as well, it takes their place. A star's trail is whole:
    /// it may follow another one, but is no piece of it.
    fn join_pieces(&mut self, believed: &mut Vec<Believed>, mode: &TrackingMode) -> Result<()> {
        let settings = self.peel_settings();
        let mut refused: Vec<(Segment, Segment)> = Vec::new();
        'search: loop {
            for i in 0..believed.len() {
                for j in i + 1..believed.len() {
                    let (a, b) = (believed[i].trail(), believed[j].trail());
                    let star = [i, j].iter().any(|&k| tracking::is_star(mode, &as_seen(&believed[k])));
                    let apart = star || refused.contains(&(a.segment, b.segment));
                    let Some(span) = (!apart).then(|| joint_span(&a, &b)).flatten() else { continue };
                    self.backend.add_trails(&[a, b], 1.0)?;
                    let start = Trail { segment: span, flux: a.flux + b.flux, ..a };
                    let fit = self.backend.fit(&[FitRequest { start, subtracted: false }], &settings)?[0];
                    let separate = believed[i].fit.snr.powi(2) + believed[j].fit.snr.powi(2);
                    let covers = fit.trail.segment.length_px() > 0.8 * span.length_px();
                    if fit.snr.powi(2) >= MIN_JOINT_POWER * separate && covers {
                        self.backend.add_trails(&[fit.trail], -1.0)?;
                        believed[i] = Believed { fit, joined: true };
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

    /// A trail along the stars' angle and longer than theirs may be two stars in a row: these take its place where
    /// they explain its light better.
    fn split_stars(&mut self, believed: &mut Vec<Believed>, star_px: f64, star_angle: f64) -> Result<()> {
        let settings = self.peel_settings();
        let along = |b: &Believed| {
            let segment = &b.trail().segment;
            let slack = 2.0 * self.sigma() / segment.length_px();
            segment.length_px() > 1.3 * star_px
                && track_angle_difference(segment.angle_rad(), star_angle) < slack + 1_f64.to_radians()
        };
        let long: Vec<usize> = (0..believed.len()).filter(|&i| along(&believed[i])).collect();
        for i in long {
            let whole = believed[i];
            self.backend.add_trails(&[whole.trail()], 1.0)?;
            let track = whole.trail().segment.extended(0.5 * star_px, 0.5 * star_px);
            let profile = &self.backend.profiles(&[track], self.sigma() as f32)?[0];
            let stars = two_stars(&track, profile, star_px).map(|segments| {
                segments.map(|segment| FitRequest {
                    start: Trail { segment, flux: 0.0, ..whole.trail() },
                    subtracted: false,
                })
            });
            let fits = self.backend.fit(stars.as_ref().map_or(&[][..], |s| s.as_slice()), &settings)?;
            let power: f64 = fits.iter().map(|f| f.snr.powi(2)).sum();
            let apart = fits.len() == 2 && joint_span(&fits[0].trail, &fits[1].trail).is_some();
            let better = power > whole.fit.snr.powi(2) + MIN_SPLIT_GAIN;
            if apart && better && fits.iter().all(|f| self.is_significant(f)) {
                self.backend.add_trails(&[fits[0].trail, fits[1].trail], -1.0)?;
                believed[i] = Believed { fit: fits[0], joined: false };
                believed.push(Believed { fit: fits[1], joined: false });
            } else {
                self.backend.add_trails(&[whole.trail()], -1.0)?;
            }
        }
        Ok(())
    }
}

fn as_seen(b: &Believed) -> Seen {
    Seen { segment: b.trail().segment, length_err_px: 0.0, whole: true, wide: false }
}

/// The segment from the outer end of one trail to that of the other, where they could be pieces of one.
fn joint_span(a: &Trail, b: &Trail) -> Option<Segment> {
    let (long, short) = if a.segment.length_px() >= b.segment.length_px() { (a, b) } else { (b, a) };
    let sigma = a.sigma_eff_px;
    let (long_px, short_px) = (long.segment.length_px(), short.segment.length_px());
    let ((u1, v1), (u2, v2)) =
        (long.segment.along_across(short.segment.start), long.segment.along_across(short.segment.end));
    let (near, far) = (u1.min(u2), u1.max(u2));
    let gap = (near - long_px).max(-far);
    // A direction is known to about a PSF width over the length.
    let angle_slack = 1.5 * sigma / short_px + 0.01;
    let lateral_slack = 2.0 * sigma * (1.0 + (gap.max(0.0) + 0.5 * short_px) / long_px);
    let collinear = track_angle_difference(long.segment.angle_rad(), short.segment.angle_rad()) < angle_slack
        && (0.5 * (v1 + v2)).abs() < lateral_slack;
    if !collinear || gap > long_px.max(30.0) || gap < -short_px {
        return None;
    }
    let ends = [long.segment.start, long.segment.end, short.segment.start, short.segment.end];
    let along = |p: &Point| long.segment.along_across(*p).0;
    let first = ends.into_iter().min_by(|p, q| along(p).total_cmp(&along(q)))?;
    let last = ends.into_iter().max_by(|p, q| along(p).total_cmp(&along(q)))?;
    Some(Segment::new(first, last))
}

/// The two places along a track where trails of one length, one behind the other, explain most of its light; none
/// where the track has no room for them.
fn two_stars(track: &Segment, profile: &TrackProfile, star_px: f64) -> Option<[Segment; 2]> {
    let n = (star_px / profile.bin_px).round().max(1.0) as usize;
    let powers: Vec<f64> = profile
        .signal
        .windows(n)
        .zip(profile.variance.windows(n))
        .map(|(signal, variance)| {
            let sum = |values: &[f32]| -> f64 { values.iter().map(|v| f64::from(*v)).sum() };
            let (light, variance) = (sum(signal), sum(variance));
            if light > 0.0 && variance > 0.0 { light * light / variance } else { 0.0 }
        })
        .collect();
    let mut best: Option<(f64, usize, usize)> = None;
    // The best first place among all that leave room before the second.
    let mut first = 0;
    for second in n..powers.len() {
        if powers[second - n] > powers[first] {
            first = second - n;
        }
        let power = powers[first] + powers[second];
        if best.is_none_or(|(most, ..)| power > most) {
            best = Some((power, first, second));
        }
    }
    let (_, first, second) = best?;
    let edge = |k: usize| {
        let along = profile.first_px + (k as f64 - 0.5) * profile.bin_px;
        track.at((along / track.length_px()).clamp(0.0, 1.0))
    };
    Some([first, second].map(|k| Segment::new(edge(k), edge(k + n))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(x1: f64, y1: f64, x2: f64, y2: f64) -> Trail {
        Trail { segment: Segment::from_coordinates(x1, y1, x2, y2), flux: 1.0, background: 0.0, sigma_eff_px: 1.5 }
    }

    #[test]
    fn pieces_of_a_line_span_it() {
        let span = joint_span(&trail(0.0, 0.0, 40.0, 0.0), &trail(60.0, 0.5, 90.0, 0.2)).unwrap();
        assert_eq!((span.start.x, span.end.x), (0.0, 90.0));
        assert!(
            joint_span(&trail(0.0, 0.0, 40.0, 0.0), &trail(60.0, 8.0, 90.0, 8.0)).is_none(),
            "parallel, 8 px apart"
        );
        assert!(joint_span(&trail(0.0, 0.0, 40.0, 0.0), &trail(20.0, -20.0, 20.0, 20.0)).is_none(), "crossing");
        assert!(joint_span(&trail(0.0, 0.0, 40.0, 0.0), &trail(200.0, 0.0, 240.0, 0.0)).is_none(), "far apart");
    }

    #[test]
    fn two_stars_in_a_row_are_placed() {
        let track = Segment::from_coordinates(0.0, 5.0, 120.0, 5.0);
        let lit = |i: i32| f32::from((10..40).contains(&i)) + 2.0 * f32::from((57..87).contains(&i));
        let profile =
            TrackProfile { bin_px: 1.0, first_px: 0.0, signal: (0..121).map(lit).collect(), variance: vec![1.0; 121] };
        let stars = two_stars(&track, &profile, 30.0).unwrap();
        let ends: Vec<(f64, f64)> = stars.iter().map(|s| (s.start.x, s.end.x)).collect();
        assert_eq!(ends, [(9.5, 39.5), (56.5, 86.5)]);
        assert_eq!(two_stars(&track, &profile, 70.0), None, "no room");
    }
}
