//! Merge stage, in frames whose stars are trails: what several stars explain as well is no trail of its own.
//!
//! Method: docs/algorithm.md, "Merge".

use crate::Result;
use crate::backend::Backend;
use crate::detection::TrackingMode;
use crate::geometry::{Segment, track_angle_difference};
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::merge::{Believed, Origin, Search};
use crate::pipeline::strip::{REACH_SIGMAS, Source, Strip};
use crate::pipeline::tracking::{self, StarMotion};

/// S/N² that a star must win: what its three parameters win of noise, twice. That two lie on a line is no rare thing.
const STAR_PRICE: f64 = 6.0;

/// S/N² that a target must win beside stars: there are hundreds of stars to a target, and more rows of stars than targets.
const TARGET_PRICE: f64 = 20.0;

/// What it must win besides where it runs along the stars' direction to [`ROWS_TURN_RAD`]: in 176 simulated frames 41 of 50
/// false targets lay there, and 21 of 366 true ones. It takes 26 of these false ones and 3 true ones.
const ROWS_TARGET_PRICE: f64 = 6.0;
const ROWS_TURN_RAD: f64 = 0.15;

/// And where stars cover much of the frame, this much more: none at the first share of its pixels, all from the second on.
/// There 23 false targets in 24 simulated frames had won less than these 20, and 3 of 88 true ones; where less is
/// covered no more false ones than true ones have.
const CROWDED_PRICE: f64 = 20.0;
const CROWDED: (f64, f64) = (0.07, 0.09);

/// What each star of a row costs besides [`STAR_PRICE`], but for those that lie on any line: it has to stand just there, and
/// be just so bright.
const ROW_PRICE: f64 = 6.0;
const ON_ANY_LINE: usize = 2;

/// Part of its S/N² that a trail may explain less than stars in its place, from the faintest up to [`LOSSY_SNR`] and
/// beyond. The stars lie on a grid, which costs them as much on the whole; of bright light a model follows no more than
/// this, and several stars follow it better than one trail.
const LEAST_LOSS: f64 = 0.01;
const MOST_LOSS: f64 = 0.03;
const LOSSY_SNR: f64 = 40.0;

/// Distance of the grid's tracks, in PSF widths.
const STEP_SIGMAS: f64 = 0.5;

/// How often every star is placed anew with the others taken out.
const ROUNDS: usize = 2;

/// Stars tried for one trail, at most.
const MOST_STARS: usize = 40;

/// A blend runs along the stars' direction to this, rad: the diagonal of two trails side by side.
const MOST_ANGLE_RAD: f64 = 0.5;

/// A faint line at any angle may be drawn through stars.
const FAINT_SNR: f64 = 12.0;

/// S/N² that a target must win, turned by so much from the stars' direction.
pub(crate) fn price_of_target(turn_rad: f64) -> f64 {
    TARGET_PRICE + if turn_rad < ROWS_TURN_RAD { ROWS_TARGET_PRICE } else { 0.0 }
}

/// Once it is known which share of the frame's pixels the stars' trails cover: whether a trail, turned by so much from
/// them, that has won so much more S/N² than stars beyond [`price_of_target`] may be a row of them all the same.
pub(crate) fn may_be_row(gain: f64, turn_rad: f64, covered: f64) -> bool {
    let (none, all) = CROWDED;
    turn_rad < ROWS_TURN_RAD && covered > none && gain < CROWDED_PRICE * ((covered - none) / (all - none)).min(1.0)
}

/// S/N² that so many stars must win, of which some lie anywhere and the others in a row.
pub(crate) fn price_of_stars(n: usize, n_anywhere: usize) -> f64 {
    STAR_PRICE * n as f64 + ROW_PRICE * n.saturating_sub(n_anywhere + ON_ANY_LINE) as f64
}

impl Search<'_> {
    /// Puts stars in the place of trails that stars of the common vector explain better.
    pub(crate) fn split_blends(&mut self, believed: &mut Vec<Believed>, mode: &TrackingMode) -> Result<()> {
        let Some(motion) = StarMotion::of(mode) else { return Ok(()) };
        let turn = |trail: &Trail| track_angle_difference(trail.segment.angle_rad(), motion.angle_rad);
        let could_be_blend = |b: &Believed| {
            !tracking::is_star(mode, &b.as_seen()) && (turn(&b.trail()) < MOST_ANGLE_RAD || b.fit.snr < FAINT_SNR)
        };
        let suspects: Vec<usize> = (0..believed.len()).filter(|&i| could_be_blend(&believed[i])).collect();
        let noise2 = self.thresholds.noise_excess.powi(2);
        let price = STAR_PRICE * noise2;
        let mut parted = Vec::new();
        for i in suspects {
            let whole = believed[i];
            // Either the trail, and stars beside it, or stars alone.
            let (beside, beside_power) = take_stars(&mut strip_around(self.backend, &whole.trail(), &motion)?, price);
            self.backend.add_trails(&[whole.trail()], 1.0)?;
            let mut strip = strip_around(self.backend, &whole.trail(), &motion)?;
            let (fit, power) = self.fit_beside(&whole, &beside, &mut strip, beside_power)?;
            let prices = price_of_target(turn(&fit.trail)) + price_of_stars(beside.len(), beside.len());
            let with_target = power - loss(fit.snr) - prices * noise2;
            let (stars, power) = take_stars(&mut strip, price);
            let gain = with_target - (power - price_of_stars(stars.len(), beside.len()) * noise2);
            if gain >= 0.0 || stars.is_empty() {
                self.backend.add_trails(&[fit.trail], -1.0)?;
                believed[i] = Believed { fit, gain_over_star_trails: Some(gain / noise2), ..whole };
                continue;
            }
            let fits: Vec<TrailFit> = stars
                .iter()
                .map(|s| TrailFit {
                    trail: Trail { segment: strip.segment(s), flux: s.flux(), ..whole.trail() },
                    snr: s.snr,
                    ..whole.fit
                })
                .collect();
            self.backend.add_trails(&fits.iter().map(|f| f.trail).collect::<Vec<_>>(), -1.0)?;
            parted.push(i);
            parted.extend(believed.len()..believed.len() + fits.len() - 1);
            let mut stars = fits.into_iter().map(|fit| Believed::new(fit, Origin::Parted));
            believed[i] = stars.next().unwrap_or(whole);
            believed.extend(stars);
        }
        // Each with the others taken out, until they have shared the light.
        self.fit_again(believed, &parted)?;
        self.fit_again(believed, &parted)
    }

    /// A trail fitted again with the stars beside it taken out, whose light its first fit had to follow, and what they
    /// explain together, in S/N²; as it was where that is more. The strip and the residual image hold the light of all.
    fn fit_beside(
        &mut self,
        whole: &Believed,
        beside: &[Source],
        strip: &mut Strip,
        beside_power: f64,
    ) -> Result<(TrailFit, f64)> {
        let before = (whole.fit, whole.fit.snr.powi(2) + beside_power);
        if beside.is_empty() {
            return Ok(before);
        }
        let mut power = 0.0;
        for star in beside {
            strip.add(star, -1.0);
            power += strip.power_of(star);
        }
        beside.iter().for_each(|star| strip.add(star, 1.0));
        let trail = |s: &Source| Trail { segment: strip.segment(s), flux: s.flux(), ..whole.trail() };
        let stars: Vec<Trail> = beside.iter().map(trail).collect();
        self.backend.add_trails(&stars, -1.0)?;
        let request = FitRequest { start: whole.trail(), subtracted: false };
        // One metric for both: that of the background's noise.
        let settings = FitSettings { photon_variance: 0.0, ..self.peel_settings() };
        let fits = self.backend.fit(&[request], &settings)?;
        self.backend.add_trails(&stars, 1.0)?;
        let lit = fits.into_iter().filter(|fit| fit.converged && fit.snr > 0.0);
        let together = lit.map(|fit| (fit, fit.snr.powi(2) + power));
        Ok(together.fold(before, |best, new| if new.1 > best.1 { new } else { best }))
    }
}

/// S/N² that a trail may explain less than stars in its place.
fn loss(snr: f64) -> f64 {
    let brightness = (snr / LOSSY_SNR).powi(2).min(1.0);
    (LEAST_LOSS + (MOST_LOSS - LEAST_LOSS) * brightness) * snr.powi(2)
}

/// The stars that explain a strip's light, while each wins more S/N² than its price, and the S/N² of all together. They
/// are taken out.
fn take_stars(strip: &mut Strip, price: f64) -> (Vec<Source>, f64) {
    let mut stars: Vec<Source> = Vec::new();
    let mut power = 0.0;
    while stars.len() < MOST_STARS {
        let Some(star) = strip.best_star().filter(|s| s.snr.powi(2) > price) else { break };
        strip.add(&star, -1.0);
        power += star.snr.powi(2);
        stars.push(star);
    }
    if stars.len() > 1 {
        for _ in 0..ROUNDS {
            for star in &mut stars {
                power -= strip.power_of(star);
                strip.add(star, 1.0);
                *star = strip.best_star().unwrap_or(*star);
                power += star.snr.powi(2);
                strip.add(star, -1.0);
            }
        }
    }
    (stars, power)
}

/// The light around a trail, along the stars' direction.
fn strip_around(backend: &mut dyn Backend, trail: &Trail, motion: &StarMotion) -> Result<Strip> {
    let sigma_px = trail.sigma_eff_px;
    let middle = trail.segment.midpoint();
    let (u, v) = Segment::around(middle, 1.0, motion.angle_rad).along_across(trail.segment.start);
    let half_length_px = (u - 0.5).abs() + 0.5 * motion.length_px + 2.0 * REACH_SIGMAS * sigma_px;
    let half_width_px = v.abs() + REACH_SIGMAS * sigma_px;
    Strip::around(backend, middle, half_length_px, half_width_px, STEP_SIGMAS * sigma_px, sigma_px, motion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::strip::sample;

    #[test]
    fn stars_side_by_side_are_told_apart() {
        let (stars, power) = take_stars(&mut sample::strip(&[(20.0, -4.5, 3.0), (45.0, 3.0, 2.0)]), 9.0);
        assert!((power - 30.0 * (9.0 + 4.0)).abs() < 25.0, "{power}");
        assert_eq!(stars.len(), 2);
        for (star, (begin, across)) in stars.iter().zip([(20.0, -4.5), (45.0, 3.0)]) {
            let off = (star.begin_px - begin, star.across_px - across);
            assert!(off.0.abs() < 1.0 && off.1.abs() < 0.8, "{stars:?}");
        }
        // S/N of an even trail of unit noise: density times the root of its length, nearly.
        assert!((stars[0].snr - 3.0 * 30_f64.sqrt()).abs() < 0.7, "{}", stars[0].snr);
        assert!((stars[1].flux() - 60.0).abs() < 3.0, "{}", stars[1].flux());
    }

    #[test]
    fn along_the_stars_a_crowd_makes_targets_dear() {
        for (turn_rad, covered, price) in [(0.1, 0.08, 10.0), (0.1, 0.09, 20.0), (0.1, 0.5, 20.0)] {
            assert!(may_be_row(price - 0.1, turn_rad, covered) && !may_be_row(price + 0.1, turn_rad, covered));
        }
        // Where no stars were found in its place its gain may be below zero.
        assert!(!may_be_row(-1.0, 0.1, 0.05) && !may_be_row(-1.0, 0.2, 0.5));
    }

    #[test]
    fn an_empty_strip_has_no_stars() {
        assert!(take_stars(&mut sample::strip(&[]), 9.0).0.is_empty());
        assert!(take_stars(&mut sample::strip(&[(20.0, 0.0, 0.3)]), 9.0).0.is_empty(), "S/N 1.6");
    }
}
