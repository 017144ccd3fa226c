//! Star trails: their own ends where these say more than the common vector, each star with the others taken out; targets
//! among them.
//!
//! Method: docs/algorithm.md, "Stars that trail".

use super::{FREE_SNR, LEAST_SNR, PLACE_ROUNDS, Setting, StarTrails, WIDTH_FREEDOM};
use crate::Result;
use crate::backend::Backend;
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit};
use crate::pipeline::points;
use crate::pipeline::search::{FAR_WIDTHS, template_correlation};
use crate::pipeline::tracking::{self, MeasuredTrail, is_distinct};
use crate::pipeline::turns::{again, fit_in_turns, in_turns, met_before, replace};

/// What its own ends make no longer than so many PSF widths, and than this part of a star, is a point that lies on stars.
const POINT_SIGMAS: f64 = 3.0;
const POINT_LENGTH: f64 = 0.25;

/// A trail that its own ends explain so much better, in S/N², is no star of the common vector, if they differ.
const OTHER_POWER: f64 = 25.0;

/// Its angle or length is off where it is by so many of its errors.
const OFF_SIGMAS: f64 = 3.0;

/// A point shares its light with a star this near, in PSF widths.
const BESIDE_SIGMAS: f64 = 4.0;

/// A target that is fitted again stays so near, in PSF widths.
const STAYS_SIGMAS: f64 = 2.0;

/// How often points and the stars that they touch are fitted in turn.
const PART_ROUNDS: usize = 4;

/// Stars whose templates have more than this in common share their light.
const SHARED: f64 = 0.05;

impl StarTrails {
    /// Fits bright trails with free ends, each with the others taken out, and the light of the others. What its own ends
    /// explain much better is no star, and put back; a star with a point beside it may be.
    pub(super) fn fit_ends(
        &self,
        backend: &mut dyn Backend,
        setting: &Setting,
        mut fits: Vec<TrailFit>,
        points: &[TrailFit],
        without: &[Trail],
    ) -> Result<Vec<Believed>> {
        let sigma = self.sigma();
        let places: Vec<Segment> = fits.iter().map(|f| f.trail.segment).collect();
        let settings = self.end_settings();
        let as_they_are = FitSettings { max_iterations: 0, ..settings };
        let touched: Vec<bool> =
            places.iter().map(|star| without.iter().any(|t| self.touch(star, &t.segment))).collect();
        let placed = fits.clone();
        let mut is_held = vec![false; fits.len()];
        let mut other = vec![false; fits.len()];
        let turns = self.turns(&fits);
        for (round, turn) in (0..PLACE_ROUNDS).flat_map(|round| turns.iter().map(move |turn| (round, turn))) {
            let bright: Vec<usize> = turn.iter().copied().filter(|&i| fits[i].snr >= FREE_SNR && !other[i]).collect();
            let requests: Vec<FitRequest> = bright.iter().map(|&i| again(&fits[i])).collect();
            let free = backend.fit(&requests, &settings)?;
            let held = if round == 0 { backend.fit(&requests, &as_they_are)? } else { free.clone() };
            backend.add_trails(&requests.iter().map(|r| r.start).collect::<Vec<_>>(), 1.0)?;
            let mut kept = Vec::new();
            for ((&i, free), held) in bright.iter().zip(free).zip(held) {
                let beside = |p: &&TrailFit| places[i].distance_to(p.trail.segment.start) < BESIDE_SIGMAS * sigma;
                let with_point = points.iter().filter(beside).map(|p| p.snr).fold(0.0, f64::max).hypot(held.snr);
                let gain_over = |snr: f64| free.snr.powi(2) - snr.powi(2);
                let alone = || self.differing_alone(&free, i, &places, &settings);
                let is_too_short = || {
                    is_whole(&free, setting) && alone().is_some_and(|t| tracking::is_short(&t.segment, &self.motion))
                };
                let is_turned =
                    || is_distinct(&free.trail.segment, &self.motion) || alone().is_some_and(|t| self.is_turned(&t));
                let most_px = (POINT_SIGMAS * sigma).min(POINT_LENGTH * self.motion.length_px);
                // Its core may be full: how much of it is seen does not matter.
                let is_point = free.trail.segment.length_px() < most_px && is_inside(&free, setting);
                // The light of a star that was fitted before may have turned out to be another's.
                other[i] = free.snr < LEAST_SNR
                    || gain_over(held.snr) > OTHER_POWER && is_too_short()
                    || is_point
                    || gain_over(with_point) > OTHER_POWER && is_turned();
                if !other[i] {
                    let held = if touched[i] { self.held(backend, &placed[i], &free, without)? } else { None };
                    (fits[i], is_held[i]) = (held.unwrap_or(free), held.is_some());
                    kept.push(fits[i].trail);
                }
            }
            backend.add_trails(&kept, -1.0)?;
        }
        let rest: Vec<usize> = (0..fits.len()).filter(|&i| fits[i].snr < FREE_SNR).collect();
        let requests: Vec<FitRequest> = rest.iter().map(|&i| again(&fits[i])).collect();
        let held = backend.fit(&requests, &as_they_are)?;
        let [before, after]: [Vec<Trail>; 2] =
            [requests.iter().map(|r| r.start).collect(), held.iter().map(|f| f.trail).collect()];
        replace(backend, &before, &after)?;
        for (&i, fit) in rest.iter().zip(held) {
            fits[i] = fit;
        }
        let stars = fits.into_iter().zip(is_held).zip(other).filter(|(_, other)| !other);
        Ok(stars.map(|((fit, is_held), _)| as_star(fit, is_held)).collect())
    }

    /// Bright trails, of which those of one turn share no light: fitted at once, stars that do would all take the same.
    fn turns(&self, fits: &[TrailFit]) -> Vec<Vec<usize>> {
        let mut brightest_first: Vec<usize> = (0..fits.len()).filter(|&i| fits[i].snr >= FREE_SNR).collect();
        brightest_first.sort_by(|&a, &b| fits[b].snr.total_cmp(&fits[a].snr));
        self.turns_of(&brightest_first, |i| fits[i].trail.segment)
    }

    /// Some trails, in their order, in turns that share no light.
    fn turns_of(&self, which: &[usize], segment: impl Fn(usize) -> Segment) -> Vec<Vec<usize>> {
        let segments: Vec<Segment> = which.iter().map(|&i| segment(i)).collect();
        let met = met_before(&segments, FAR_WIDTHS * self.sigma(), |i, j| self.share_light(&segments[i], &segments[j]));
        in_turns(&met).into_iter().map(|turn| turn.into_iter().map(|n| which[n]).collect()).collect()
    }

    fn share_light(&self, a: &Segment, b: &Segment) -> bool {
        template_correlation(a, b, self.sigma()) > SHARED
    }

    /// Fits targets again, now that less of their light is taken for the stars', or the other way round. All have been taken
    /// out. One that wanders off stays as it was.
    pub(crate) fn fit_targets_again(
        &self,
        backend: &mut dyn Backend,
        targets: &mut [Believed],
        shape: Shape,
    ) -> Result<()> {
        let settings = FitSettings { shape, ..self.end_settings() };
        let stays = |before: &TrailFit, fit: &TrailFit| {
            let moved_px = fit.trail.segment.distance_to(before.trail.segment.midpoint());
            fit.converged && fit.snr > LEAST_SNR && moved_px < STAYS_SIGMAS * self.sigma()
        };
        let mut fits: Vec<TrailFit> = targets.iter().map(|b| b.fit).collect();
        let reach_px = FAR_WIDTHS * self.sigma();
        fit_in_turns(backend, &mut fits, &settings, reach_px, |a, b| self.share_light(a, b), stays)?;
        targets.iter_mut().zip(fits).for_each(|(target, fit)| target.fit = fit);
        Ok(())
    }

    /// Takes those points out that fit as such; others may be what is seen of a star, its middle hidden.
    pub(super) fn take_out_points(
        &self,
        backend: &mut dyn Backend,
        points: Vec<TrailFit>,
    ) -> Result<(Vec<Trail>, Vec<TrailFit>)> {
        let mut fitted: Vec<Believed> = points.iter().map(|p| Believed::new(*p, Origin::Found)).collect();
        backend.add_trails(&points.iter().map(|p| p.trail).collect::<Vec<_>>(), -1.0)?;
        self.fit_targets_again(backend, &mut fitted, Shape::Point)?;
        let settings = FitSettings { shape: Shape::Point, ..self.end_settings() };
        let is_point = |fit: &TrailFit| {
            fit.converged && !points::leaves_too_much(fit.misfit(&settings), fit.snr, fit, &self.doubt)
        };
        let (fitting, other): (Vec<_>, Vec<_>) = fitted.into_iter().zip(points).partition(|(b, _)| is_point(&b.fit));
        let fitting: Vec<Trail> = fitting.iter().map(|(b, _)| b.trail()).collect();
        backend.add_trails(&other.iter().map(|(b, _)| b.trail()).collect::<Vec<_>>(), 1.0)?;
        Ok((fitting, other.into_iter().map(|(_, point)| point).collect()))
    }

    /// Fits points and the stars they touch in turn, until neither has the other's light. All have been taken out.
    pub(crate) fn part_from(&mut self, backend: &mut dyn Backend, points: &mut [Believed]) -> Result<()> {
        for _ in 0..PART_ROUNDS {
            let models: Vec<Trail> = points.iter().map(Believed::trail).collect();
            let is_touched = |star: &Believed| models.iter().any(|p| self.touch(&star.trail().segment, &p.segment));
            let fits: Vec<TrailFit> = self.trails.iter().map(|star| star.fit).collect();
            let touched: Vec<usize> = (0..fits.len()).filter(|&i| is_touched(&self.trails[i])).collect();
            for turn in self.turns_of(&touched, |i| fits[i].trail.segment) {
                let requests: Vec<FitRequest> = turn.iter().map(|&i| again(&fits[i])).collect();
                let free = backend.fit(&requests, &self.end_settings())?;
                backend.add_trails(&requests.iter().map(|r| r.start).collect::<Vec<_>>(), 1.0)?;
                for (&i, free) in turn.iter().zip(free) {
                    let held = self.held(backend, &fits[i], &free, &models)?;
                    let is_part_of_wings = self.trails[i].is_part_of_wings;
                    let star = as_star(held.unwrap_or(free), held.is_some());
                    self.trails[i] = Believed { is_part_of_wings, ..star };
                }
                backend.add_trails(&turn.iter().map(|&i| self.trails[i].trail()).collect::<Vec<_>>(), -1.0)?;
            }
            self.fit_targets_again(backend, points, Shape::Point)?;
        }
        Ok(())
    }

    /// Whether a target touches a star, so that a part of the one may be taken for the other's.
    pub(super) fn touch(&self, star: &Segment, target: &Segment) -> bool {
        let near_px = BESIDE_SIGMAS * self.sigma();
        star.distance_to(target.midpoint()) < near_px || self.share_light(star, target)
    }

    /// A star with the errors that its own ends have.
    pub(crate) fn measured(&self, star: &Believed) -> Option<MeasuredTrail> {
        measured(&star.fit, &self.end_settings())
    }

    pub(super) fn end_settings(&self) -> FitSettings {
        let sigma = self.sigma();
        self.settings((sigma / WIDTH_FREEDOM, sigma * WIDTH_FREEDOM))
    }

    /// A trail that is not of the stars' vector, and no blend: where stars share their light, the ends of one say little.
    fn differing_alone(
        &self,
        free: &TrailFit,
        i: usize,
        places: &[Segment],
        settings: &FitSettings,
    ) -> Option<MeasuredTrail> {
        let shares = |j: usize| self.share_light(&places[i], &places[j]);
        measured(free, settings)
            .filter(|trail| !tracking::agrees(&trail.segment, trail.length_err_px, &self.motion))
            .filter(|_| !(0..places.len()).any(|j| j != i && shares(j)))
    }

    /// Its own ends say another vector than the stars have.
    fn is_off(&self, trail: &MeasuredTrail) -> bool {
        let turn_rad = track_angle_difference(trail.segment.angle_rad(), self.motion.angle_rad);
        (trail.segment.length_px() - self.motion.length_px).abs() > OFF_SIGMAS * trail.length_err_px
            || turn_rad > OFF_SIGMAS * trail.angle_err_rad
    }

    /// A star that targets touch as it fits with the common vector: from its end that none touches, or where it was placed.
    /// None where its own ends say more. Its light is back in the residual image.
    fn held(
        &self,
        backend: &mut dyn Backend,
        placed: &TrailFit,
        free: &TrailFit,
        targets: &[Trail],
    ) -> Result<Option<TrailFit>> {
        let Segment { start, end } = free.trail.segment;
        let is_touched = |p: Point| targets.iter().any(|t| t.segment.distance_to(p) < BESIDE_SIGMAS * self.sigma());
        let is_off = || measured(free, &self.end_settings()).is_none_or(|t| self.is_off(&t));
        let segment = match [start, end].map(is_touched) {
            _ if placed.snr < FREE_SNR => placed.trail.segment,
            [false, true] if self.vector_tells(free) => self.star_from(start, end),
            [true, false] if self.vector_tells(free) => self.star_from(end, start),
            [true, true] if self.vector_tells(free) => placed.trail.segment,
            _ if is_off() => placed.trail.segment,
            _ => return Ok(None),
        };
        let request = FitRequest { start: Trail { segment, ..placed.trail }, subtracted: false };
        let as_it_is = FitSettings { max_iterations: 0, ..self.end_settings() };
        Ok(backend.fit(&[request], &as_it_is)?.pop())
    }

    /// What the vector does not know of a star's length is less of its light than a point's error of flux.
    fn vector_tells(&self, star: &TrailFit) -> bool {
        let off_px = self.motion.length_err_px.hypot(self.spread_px);
        // A of noise is a point's error of flux, √(A L) that of a trail.
        let a = 2.0 * std::f64::consts::PI.sqrt() * self.sigma();
        star.snr * off_px < (a * self.motion.length_px).sqrt()
    }

    /// A trail of the common vector from one end, towards another.
    fn star_from(&self, end: Point, other: Point) -> Segment {
        let (c, s) = (self.motion.angle_rad.cos(), self.motion.angle_rad.sin());
        let length_px = self.motion.length_px.copysign((other.x - end.x) * c + (other.y - end.y) * s);
        Segment::new(end, Point::new(end.x + length_px * c, end.y + length_px * s))
    }

    /// One that is longer than a star may hold a point or a second star.
    fn is_turned(&self, trail: &MeasuredTrail) -> bool {
        let longest_px = self.motion.length_px + OFF_SIGMAS * trail.length_err_px;
        trail.segment.length_px() < longest_px
            && tracking::is_turned(&trail.segment, OFF_SIGMAS * trail.angle_err_rad, &self.motion)
    }
}

fn as_star(fit: TrailFit, is_held: bool) -> Believed {
    Believed { keeps_vector: is_held || fit.snr < FREE_SNR, ..Believed::new(fit, Origin::Star) }
}

/// Both ends are seen, well inside of the frame.
pub(super) fn is_whole(fit: &TrailFit, setting: &Setting) -> bool {
    fit.end_coverage.iter().all(|c| *c > 0.8) && is_inside(fit, setting)
}

/// Both ends lie inside of the frame.
fn is_inside(fit: &TrailFit, setting: &Setting) -> bool {
    let margin = 3.0 * fit.trail.sigma_eff_px;
    let inside = |p: Point| {
        p.x > margin && p.y > margin && p.x < setting.width as f64 - margin && p.y < setting.height as f64 - margin
    };
    inside(fit.trail.segment.start) && inside(fit.trail.segment.end)
}

pub(super) fn measured(fit: &TrailFit, settings: &FitSettings) -> Option<MeasuredTrail> {
    let covariance = fit.errors(settings)?.covariance_px2;
    let segment = fit.trail.segment;
    let (c, s) = segment.direction();
    let error = |w: [f64; 4]| -> f64 {
        let variance: f64 = (0..16).map(|k| w[k / 4] * covariance[k / 4][k % 4] * w[k % 4]).sum();
        variance.max(0.0).sqrt()
    };
    Some(MeasuredTrail {
        segment,
        length_err_px: error([-c, -s, c, s]),
        angle_err_rad: error([s, -c, -s, c]) / segment.length_px(),
    })
}
