//! Merge stage, in frames whose stars are trails: what several stars explain as well is no trail of its own.
//!
//! Method: docs/algorithm.md, "Merge".

use rayon::prelude::*;

use crate::Result;
use crate::backend::Backend;
use crate::geometry::{Segment, track_angle_difference};
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::merge::Search;
use crate::pipeline::strip::{BINS_AT_ONCE, Crossing, Source, Strip};
use crate::pipeline::tracking::{self, StarMotion};
use crate::pipeline::turns::{in_order, met_before};
use crate::report::TrackingMode;

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
        let could_be_blend = |b: &Believed| {
            !tracking::is_star(mode, &b.as_seen())
                && (turn(&b.trail(), &motion) < MOST_ANGLE_RAD || b.fit.snr < FAINT_SNR)
        };
        let suspects: Vec<usize> = (0..believed.len()).filter(|&i| could_be_blend(&believed[i])).collect();
        let trails: Vec<Trail> = suspects.iter().map(|&i| believed[i].trail()).collect();
        let areas: Vec<Area> = trails.iter().map(|trail| Area::around(trail, &motion)).collect();
        let near_px = 2.0 * self.peel_settings().reach_px;
        let mut verdicts = vec![Verdict::default(); suspects.len()];
        // Areas whose tracks are apart share no light, though what they span may overlap.
        let reach_px = areas.iter().map(|area| near_px + 2.0 * area.crossing.reach_px()).fold(0.0, f64::max);
        let segments: Vec<Segment> = trails.iter().map(|t| t.segment).collect();
        let met = met_before(&segments, reach_px, |i, j| !areas[i].is_apart(&areas[j], near_px));
        for turn in in_order(&met) {
            for some in some_at_once(&turn, |k| areas[k].n_bins()) {
                let wholes: Vec<Believed> = some.iter().map(|&k| believed[suspects[k]]).collect();
                let areas: Vec<Area> = some.iter().map(|&k| areas[k]).collect();
                for (&k, verdict) in some.iter().zip(self.trails_or_stars(&wholes, &areas, &motion)?) {
                    verdicts[k] = verdict;
                }
            }
        }
        let mut parted = Vec::new();
        for (i, Verdict { in_place, are_stars }) in suspects.into_iter().zip(verdicts) {
            let mut in_place = in_place.into_iter();
            believed[i] = in_place.next().unwrap_or(believed[i]);
            if are_stars {
                parted.push(i);
                parted.extend(believed.len()..believed.len() + in_place.len());
            }
            believed.extend(in_place);
        }
        // Each with the others taken out, until they have shared the light.
        self.fit_again(believed, &parted)?;
        self.fit_again(believed, &parted)
    }

    /// What each of some trails is that share no light: it, with stars beside it, or stars alone. Before and after, all
    /// that is believed is out of the residual image.
    fn trails_or_stars(&mut self, wholes: &[Believed], areas: &[Area], motion: &StarMotion) -> Result<Vec<Verdict>> {
        let noise2 = self.thresholds.noise_excess.powi(2);
        let price = STAR_PRICE * noise2;
        let trails: Vec<Trail> = wholes.iter().map(Believed::trail).collect();
        let strips = strips_in(self.backend, areas, motion)?;
        let beside: Vec<(Vec<Source>, f64)> =
            strips.into_par_iter().map(|mut strip| take_stars(&mut strip, price)).collect();
        self.backend.add_trails(&trails, 1.0)?;
        let mut strips = strips_in(self.backend, areas, motion)?;
        let fits = self.fit_beside(wholes, &beside, &mut strips)?;
        let suspects: Vec<Suspect<'_>> = wholes
            .iter()
            .zip(&beside)
            .zip(fits)
            .zip(strips)
            .map(|(((whole, (stars, _)), (fit, power)), strip)| Suspect {
                whole,
                n_beside: stars.len(),
                fit,
                power,
                strip,
            })
            .collect();
        let verdicts: Vec<Verdict> = suspects.into_par_iter().map(|s| s.verdict(motion, noise2)).collect();
        let believed: Vec<Trail> = verdicts.iter().flat_map(|v| &v.in_place).map(Believed::trail).collect();
        self.backend.add_trails(&believed, -1.0)?;
        Ok(verdicts)
    }

    /// Trails fitted again with the stars beside them taken out, whose light their first fits had to follow, and what
    /// each of them explains together with these, in S/N²; as it was where that is more. The strips and the residual image
    /// hold the light of all.
    fn fit_beside(
        &mut self,
        wholes: &[Believed],
        beside: &[(Vec<Source>, f64)],
        strips: &mut [Strip],
    ) -> Result<Vec<(TrailFit, f64)>> {
        let mut fits: Vec<(TrailFit, f64)> =
            wholes.iter().zip(beside).map(|(whole, (_, power))| (whole.fit, whole.fit.snr.powi(2) + power)).collect();
        let which: Vec<usize> = (0..wholes.len()).filter(|&i| !beside[i].0.is_empty()).collect();
        let powers: Vec<f64> =
            strips.par_iter_mut().zip(beside).map(|(strip, (stars, _))| power_of(stars, strip)).collect();
        let trail = |i: usize, s: &Source| Trail { segment: strips[i].segment(s), flux: s.flux(), ..wholes[i].trail() };
        let stars: Vec<Trail> =
            which.iter().flat_map(|&i| beside[i].0.iter().map(move |s| (i, s))).map(|(i, s)| trail(i, s)).collect();
        self.backend.add_trails(&stars, -1.0)?;
        let requests: Vec<FitRequest> =
            which.iter().map(|&i| FitRequest { start: wholes[i].trail(), subtracted: false }).collect();
        // One metric for both: that of the background's noise.
        let settings = FitSettings { photon_variance: 0.0, ..self.peel_settings() };
        let again = self.backend.fit(&requests, &settings)?;
        self.backend.add_trails(&stars, 1.0)?;
        for (i, fit) in which.into_iter().zip(again) {
            let power = fit.snr.powi(2) + powers[i];
            if fit.converged && fit.snr > 0.0 && power > fits[i].1 {
                fits[i] = (fit, power);
            }
        }
        Ok(fits)
    }
}

/// A trail that may be a blend.
struct Suspect<'a> {
    whole: &'a Believed,
    /// Stars beside it.
    n_beside: usize,
    /// With these taken out.
    fit: TrailFit,
    /// What it and these explain, in S/N².
    power: f64,
    /// The light of all.
    strip: Strip,
}

/// What is believed in the place of a suspect.
#[derive(Debug, Clone, Default)]
struct Verdict {
    in_place: Vec<Believed>,
    are_stars: bool,
}

impl Suspect<'_> {
    fn verdict(self, motion: &StarMotion, noise2: f64) -> Verdict {
        let Self { whole, n_beside, fit, power, mut strip } = self;
        let prices = price_of_target(turn(&fit.trail, motion)) + price_of_stars(n_beside, n_beside);
        let with_target = power - loss(fit.snr) - prices * noise2;
        let (stars, power) = take_stars(&mut strip, STAR_PRICE * noise2);
        let gain = with_target - (power - price_of_stars(stars.len(), n_beside) * noise2);
        if gain >= 0.0 || stars.is_empty() {
            let trail = Believed { fit, gain_over_star_trails: Some(gain / noise2), ..*whole };
            return Verdict { in_place: vec![trail], are_stars: false };
        }
        let star = |s: &Source| {
            let trail = Trail { segment: strip.segment(s), flux: s.flux(), ..whole.trail() };
            Believed::new(TrailFit { trail, snr: s.snr, ..whole.fit }, Origin::Parted)
        };
        Verdict { in_place: stars.iter().map(star).collect(), are_stars: true }
    }
}

/// Angle from a trail to the stars' direction.
fn turn(trail: &Trail, motion: &StarMotion) -> f64 {
    track_angle_difference(trail.segment.angle_rad(), motion.angle_rad)
}

/// S/N² of stars in a strip, one after the other, which holds their light before and after.
fn power_of(stars: &[Source], strip: &mut Strip) -> f64 {
    let mut power = 0.0;
    for star in stars {
        strip.add(star, -1.0);
        power += strip.power_of(star);
    }
    stars.iter().for_each(|star| strip.add(star, 1.0));
    power
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

/// Where the stars may lie in whose place a trail may be.
#[derive(Debug, Clone, Copy)]
struct Area {
    crossing: Crossing,
    /// Cosine and sine of the stars' direction.
    direction: (f64, f64),
    sigma_px: f64,
}

impl Area {
    fn around(trail: &Trail, motion: &StarMotion) -> Self {
        let sigma_px = trail.sigma_eff_px;
        let (s, c) = motion.angle_rad.sin_cos();
        Self { crossing: Crossing::new(&trail.segment, sigma_px, motion), direction: (c, s), sigma_px }
    }

    fn is_apart(&self, other: &Self, by_px: f64) -> bool {
        let (a, b) = (&self.crossing, &other.crossing);
        let (x, y) = (b.middle.x - a.middle.x, b.middle.y - a.middle.y);
        let (c, s) = self.direction;
        let (along, across) = ((x * c + y * s).abs(), (y * c - x * s).abs());
        along > a.half_length_px() + b.half_length_px() + by_px
            || across > a.half_width_px() + b.half_width_px() + by_px
    }

    fn step_px(&self) -> f64 {
        STEP_SIGMAS * self.sigma_px
    }

    /// Bins of its strip, of a pixel each.
    fn n_bins(&self) -> usize {
        self.crossing.n_px(self.step_px())
    }
}

/// The light in some areas.
fn strips_in(backend: &mut dyn Backend, areas: &[Area], motion: &StarMotion) -> Result<Vec<Strip>> {
    areas.iter().map(|a| Strip::crossed(backend, &a.crossing, a.step_px(), a.sigma_px, motion)).collect()
}

/// Parts of a list, each with no more than [`BINS_AT_ONCE`] or of one alone.
fn some_at_once(all: &[usize], n_bins: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut sum = 0;
    for &k in all {
        sum += n_bins(k);
        match parts.last_mut() {
            Some(part) if sum <= BINS_AT_ONCE => part.push(k),
            _ => {
                parts.push(vec![k]);
                sum = n_bins(k);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;
    use crate::pipeline::strip::{REACH_SIGMAS, sample};

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
    fn areas_are_apart_along_the_stars_or_across() {
        let motion =
            StarMotion { length_px: 30.0, angle_rad: 0.3, length_err_px: 0.1, angle_err_rad: 0.01, n_stars: 40 };
        let (s, c) = motion.angle_rad.sin_cos();
        let at = |along: f64, across: f64| {
            let middle = Point::new(200.0 + along * c - across * s, 150.0 + along * s + across * c);
            let segment = Segment::around(middle, 20.0, motion.angle_rad);
            Area::around(&Trail { segment, flux: 1.0, background: 0.0, sigma_eff_px: 1.5 }, &motion)
        };
        let (here, length, width) = (at(0.0, 0.0), 20.0 + 30.0 + 4.0 * REACH_SIGMAS * 1.5, 2.0 * REACH_SIGMAS * 1.5);
        for (off, expected) in [(0.5, true), (-0.5, false)] {
            assert_eq!(here.is_apart(&at(length + 10.0 + off, 0.0), 10.0), expected);
            assert_eq!(here.is_apart(&at(0.0, -width - 10.0 - off), 10.0), expected);
        }
    }

    #[test]
    fn parts_hold_no_more_than_fits() {
        let n_bins = |k: usize| [BINS_AT_ONCE / 2, BINS_AT_ONCE / 2, 1, 2 * BINS_AT_ONCE, 7][k];
        assert_eq!(some_at_once(&[0, 1, 2, 3, 4], n_bins), [vec![0, 1], vec![2], vec![3], vec![4]]);
        assert!(some_at_once(&[], n_bins).is_empty());
    }

    #[test]
    fn an_empty_strip_has_no_stars() {
        assert!(take_stars(&mut sample::strip(&[]), 9.0).0.is_empty());
        assert!(take_stars(&mut sample::strip(&[(20.0, 0.0, 0.3)]), 9.0).0.is_empty(), "S/N 1.6");
    }
}
