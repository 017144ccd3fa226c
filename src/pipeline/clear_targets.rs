//! What is clearly a target, before all stars are known where these are trails: faint stars would be made of it.
//!
//! Method: docs/algorithm.md, "Two regimes".

use crate::detection::Flags;
use crate::geometry::Point;
use crate::pipeline::believed::Believed;
use crate::pipeline::judge::{KnownTrail, lies_along};
use crate::pipeline::last_fits::{self, Measured};
use crate::pipeline::measure::Trail;
use crate::pipeline::tracking::{self, StarMotion};

/// A trail that explains so much more S/N² than stars in its place, prices included, is none of them; of a bright one this
/// part of its own, since no model follows its light.
const CLEAR_GAIN: f64 = 60.0;
const CLEAR_SHARE: f64 = 0.02;

/// It must also be turned further than rows of stars are, by so many errors of its angle: what is left of a bright star
/// lies along it.
const CLEAR_SIGMAS: f64 = 3.0;

/// Made of pieces, from this S/N on one that fits is not made of stars.
const EVEN_SNR: f64 = 100.0;

/// A trail whose ends lie within so many PSF widths is the same again.
const AGAIN_SIGMAS: f64 = 3.0;

/// So many trails tell the stars' vector and width as well as all.
const ENOUGH_TRAILS: usize = 300;

/// A trail wider than so many PSF widths may be two side by side: chance widens a faint one, a star beside it a bright
/// one.
fn clear_width(snr: f64) -> f64 {
    if snr < 20.0 { 1.12 } else { 1.25 }
}

/// Trails that are clearly none of the stars, nor made of them, of some S/N and more. They would be taken for several.
/// Once the bright stars are known, those that explain far more than stars would are too, and short ones, unless they may
/// be what is left of one; what was clear before remains it in pieces.
pub(crate) fn clear_targets(
    measured: Vec<Measured>,
    motion: &StarMotion,
    sigma_eff_px: f64,
    least_snr: f64,
    bright: Option<&[Trail]>,
    before: &[Measured],
) -> Vec<Measured> {
    let blended = Flags::WIDE | Flags::CURVED;
    // A row of stars is no even trail.
    let is_row = |m: &Measured| {
        let is_even = m.detection.snr >= EVEN_SNR && !m.detection.flags.contains(Flags::POOR_FIT);
        let again = |b: &Measured| {
            let (a, b) = (m.detection.segment, b.detection.segment);
            let near = |p: Point, q: Point| p.distance(q) < AGAIN_SIGMAS * sigma_eff_px;
            near(a.start, b.start) && near(a.end, b.end) || near(a.start, b.end) && near(a.end, b.start)
        };
        m.detection.flags.contains(Flags::JOINED) && !is_even && !before.iter().any(again)
    };
    let beats_stars = |m: &Measured| {
        let slack_rad = CLEAR_SIGMAS * m.detection.angle_err_rad();
        let least = CLEAR_GAIN.max(CLEAR_SHARE * m.detection.snr.powi(2));
        m.gain_over_star_trails.is_some_and(|gain| gain > least)
            && last_fits::as_seen(&m.detection).whole
            && tracking::is_turned(&m.detection.segment, slack_rad, motion)
    };
    let is_clear = |m: &Measured| {
        m.detection.snr >= least_snr
            && m.sigma_eff_px < clear_width(m.detection.snr) * sigma_eff_px
            && !m.detection.flags.intersects(blended)
            && !is_row(m)
            && m.is_target(&motion.mode())
            && (tracking::is_distinct(&m.detection.segment, motion)
                || bright.is_some_and(|stars| {
                    beats_stars(m)
                        || tracking::is_short_and_turned(&m.detection.segment, motion) && !m.is_remnant(stars, motion)
                }))
    };
    measured.into_iter().filter(is_clear).collect()
}

/// Those of some trails that may be [`clear_targets`] by their first fits, and what may be pieces of them: stars too faint to
/// be known are ten times as many.
pub(crate) fn may_be_clear(mut trails: Vec<Believed>, motion: &StarMotion, least_snr: f64) -> Vec<Believed> {
    let may_be = |trail: &Believed| {
        let segment = &trail.trail().segment;
        trail.fit.snr >= least_snr
            && (tracking::is_distinct(segment, motion)
                || tracking::is_short_and_turned(segment, motion)
                || trail.gain_over_star_trails.is_some_and(|gain| gain > CLEAR_GAIN))
    };
    let known: Vec<KnownTrail> = trails.iter().filter(|t| may_be(t)).map(Believed::as_known).collect();
    let is_piece = |t: &Believed| known.iter().any(|k| lies_along(&t.trail().segment, t.fit.snr, k));
    trails.retain(|t| may_be(t) || is_piece(t));
    trails
}

/// Of the trails of a first look some, bright and faint ones, that tell the stars' vector and width as well as all; and of
/// the others those that may be clear targets.
pub(crate) fn enough_of_first_look(
    trails: Vec<Believed>,
    motion: &StarMotion,
    least_snr: f64,
) -> (Vec<Believed>, Vec<Believed>) {
    let every = (trails.len() / ENOUGH_TRAILS).max(1);
    let (some, others): (Vec<_>, Vec<_>) = trails.into_iter().enumerate().partition(|(i, _)| i % every == 0);
    let [some, others]: [Vec<Believed>; 2] = [some, others].map(|part| part.into_iter().map(|(_, t)| t).collect());
    (some, may_be_clear(others, motion, least_snr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Segment;
    use crate::pipeline::believed::Origin;
    use crate::pipeline::measure::TrailFit;

    #[test]
    fn of_thousands_of_stars_some_are_measured_and_all_that_may_be_targets() {
        let motion = StarMotion { length_px: 40.0, angle_rad: 0.3, length_err_px: 0.0, angle_err_rad: 0.0, n_stars: 0 };
        let trail = |k: usize| {
            // One of a hundred across, half of these faint.
            let angle_rad = if k % 100 == 7 { 1.2 } else { 0.3 };
            let snr = if k % 200 == 7 { 15.0 } else { 5000.0 / (1.0 + k as f64) + 20.0 };
            let segment = Segment::around(Point::new(k as f64, 50.0), 40.0, angle_rad);
            let trail = Trail { segment, flux: 1.0, background: 0.0, sigma_eff_px: 1.5 };
            Believed::new(TrailFit { snr, ..TrailFit::unfitted(trail) }, Origin::Found)
        };
        let trails: Vec<Believed> = (0..3000).map(trail).collect();
        let (some, may_be_clear) = enough_of_first_look(trails.clone(), &motion, 20.0);
        assert_eq!(some, trails.iter().step_by(10).copied().collect::<Vec<_>>());
        let across: Vec<usize> = may_be_clear.iter().map(|b| b.trail().segment.midpoint().x.round() as usize).collect();
        assert_eq!(across, (0..15).map(|k| 107 + 200 * k).collect::<Vec<_>>());
        let (all, none) = enough_of_first_look(trails[..300].to_vec(), &motion, 20.0);
        assert_eq!((all.len(), none.len()), (300, 0));
    }

    #[test]
    fn a_piece_beside_what_may_be_a_target_is_measured_with_it() {
        let motion = StarMotion { length_px: 40.0, angle_rad: 0.3, length_err_px: 0.0, angle_err_rad: 0.0, n_stars: 0 };
        let at = |trail: &Believed, part: f64| trail.trail().segment.at(part);
        let trail = |middle: Point, length_px: f64, angle_rad: f64, snr: f64| {
            let segment = Segment::around(middle, length_px, angle_rad);
            let trail = Trail { segment, flux: 1.0, background: 0.0, sigma_eff_px: 1.5 };
            Believed::new(TrailFit { snr, ..TrailFit::unfitted(trail) }, Origin::Found)
        };
        let target = trail(Point::new(200.0, 100.0), 90.0, 1.2, 30.0);
        let piece = trail(at(&target, 0.6), 10.0, 1.1, 9.0);
        let star = trail(Point::new(200.0, 300.0), 40.0, 0.3, 60.0);
        let piece_of_star = trail(at(&star, 0.6), 9.0, 0.4, 9.0);
        let kept = may_be_clear(vec![star, target, piece, piece_of_star], &motion, 11.0);
        assert_eq!(kept, [target, piece]);
    }
}
