//! Points: what stands still where the stars are trails.
//!
//! Method: docs/algorithm.md, "Points among star trails".

use crate::Result;
use crate::backend::Backend;
use crate::detection::Detection;
use crate::frame::Frame;
use crate::geometry::{Point, Segment};
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::detected::{detection, distance_to_border};
use crate::pipeline::in_line::{self, STAR_ODDS};
use crate::pipeline::judge::JudgeConfig;
use crate::pipeline::last_fits::final_settings;
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, Trail, TrailFit};
use crate::pipeline::psf::effective_sigma;
use crate::pipeline::star_trails::noise_of_light;
use crate::pipeline::stars::{self, StarField};
use crate::pipeline::strip::{Doubt, REACH_SIGMAS, Source, Strip};
use crate::pipeline::tracking::{self, StarMotion};
use crate::pipeline::turns::{again, fit_in_turns};
use crate::pipeline::weigh::{Field, SourceClass, WeighConfig};
use crate::report::{RejectReason, Rejected};

/// The points of a frame, and what was not believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Points {
    pub(crate) detections: Vec<Detection>,
    /// The fits to them.
    pub(crate) believed: Vec<Believed>,
    pub(crate) rejected: Vec<Rejected>,
}

/// What is known of a frame when its points are looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PointSearch<'a> {
    pub(crate) frame: &'a Frame<'a>,
    pub(crate) field: &'a StarField,
    pub(crate) weigh: &'a WeighConfig,
    pub(crate) judge: &'a JudgeConfig,
    pub(crate) motion: StarMotion,
    /// Everything that has been taken out.
    pub(crate) trails: &'a [Trail],
    pub(crate) doubt: Doubt,
    /// The typical noise of a pixel.
    pub(crate) sky_noise: f64,
    pub(crate) threshold_snr: f64,
    /// Scatter over that of white noise; the threshold has been multiplied by it.
    pub(crate) noise_excess: f64,
}

/// The maximum on the grid of pixels lies a little below the S/N of the fit.
const GRID_LOSS: f64 = 0.8;

/// What is seen of a star's trail that ends this near to the border, in PSF widths, looks like a point.
const EDGE_WIDTHS: f64 = 4.0;

/// A point source wider than this many PSF widths, by one and a half of its errors, is none; beside a star's trail, where
/// it may be a part of another star, less is too much.
const MOST_WIDTH: f64 = 1.4;
const MOST_WIDTH_BESIDE: f64 = 1.1;

/// Beside a trail: no further from it than this many PSF widths.
const BESIDE_SIGMAS: f64 = 3.0;

/// A point may leave this much of reduced χ² beyond chance where its own model's error does not explain more.
const MOST_MISFIT: f64 = 3.0;

/// That error may be so many times the stars': where the PSF is no Gaussian a point differs from one all around. Of a
/// Moffat profile of index 3 it is 0.03 of the light, and the stars' 0.02.
const OF_POINT: f64 = 2.0;

/// What is longer than wide must reach this many times the threshold: it may be what is left of a trail, as it may be a
/// point with a faint one beside it. In 64 simulated frames points of S/N 37, 11 and 9 were such, and four false ones of 7
/// to 9.
const LONG_SHARE: f64 = 1.5;

/// The core of a point, where its own light lies: so many PSF widths to either side.
const CORE_SIGMAS: f64 = 3.0;

/// Points nearer to each other than this many PSF widths are one.
const APART_SIGMAS: f64 = 2.0;

/// How often points are fitted with width and background free.
const FREE_ROUNDS: usize = 3;

/// What is left of a point that fits badly is looked at so many PSF widths around it: it may be two.
const PAIR_SIGMAS: f64 = 6.0;

/// Lattice of the strips in which a star is tried in the place of a point, in PSF widths.
const STEP_SIGMAS: f64 = 0.5;

/// A star of a lesser part of a point's S/N explains no point.
const LEAST_SHARE: f64 = 0.5;

/// The last fit of a point, background and width free.
#[derive(Debug, Clone, Copy)]
struct FreeFit {
    /// The fit that held both.
    start: TrailFit,
    snr: f64,
    fit: TrailFit,
    /// It explains its light badly.
    is_poor: bool,
}

impl FreeFit {
    fn place(&self) -> Point {
        self.fit.trail.segment.start
    }
}

impl PointSearch<'_> {
    /// Finds and measures points. All trails have been taken out of the residual image.
    pub(crate) fn find(&self, backend: &mut dyn Backend) -> Result<Points> {
        let sigma = effective_sigma(self.field.psf_sigma_px);
        let least_snr = GRID_LOSS * self.threshold_snr;
        let sources = stars::find_sources(backend, self.field.psf_sigma_px, least_snr, self.weigh)?;
        let classes = sources.iter().map(|s| s.classify(sigma, Field::Crowded));
        let is_long: Vec<bool> =
            classes.map(|class| matches!(class, SourceClass::Elongated | SourceClass::Bleed)).collect();
        let last = final_settings(Shape::Point, self.field, self.frame);
        // Background and width are held while it is decided what is there, as when the threshold was counted.
        let held = FitSettings {
            free_background: false,
            free_sigma: false,
            sigma_range: (sigma, sigma),
            reach_px: 4.0 * sigma,
            photon_variance: 0.0,
            ..last
        };
        let first = self.fit(backend, sources.iter().map(|s| start(s.position(), sigma)), &held)?;
        let mut taken: Vec<(TrailFit, f64)> = Vec::new();
        let least = |is_long: bool| if is_long { LONG_SHARE * self.threshold_snr } else { self.threshold_snr };
        let with_snr = first.into_iter().map(|f| (f, self.snr(&f, &[])));
        let mut in_order: Vec<(TrailFit, f64)> =
            with_snr.zip(is_long).filter(|((_, snr), is_long)| *snr >= least(*is_long)).map(|(f, _)| f).collect();
        in_order.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (fit, snr) in in_order {
            let place = fit.trail.segment.start;
            let is_new = taken.iter().all(|(t, _)| t.trail.segment.start.distance(place) > APART_SIGMAS * sigma);
            if is_new && distance_to_border(place, self.frame) > sigma {
                taken.push((fit, snr));
            }
        }
        let mut points = Points::default();
        let mut believed = Vec::new();
        for (fit, snr) in taken {
            if self.is_rather_star(backend, &fit)? {
                points.rejected.push(rejected(&fit, snr, RejectReason::StarResidual));
            } else {
                believed.push((fit, snr));
            }
        }
        let mut fitted = self.fit_free(backend, &believed, &last)?;
        let partners = self.partners(backend, &fitted, &held)?;
        if !partners.is_empty() {
            believed.extend(partners);
            fitted = self.fit_free(backend, &believed, &last)?;
        }
        for (i, point) in fitted.iter().enumerate() {
            let &FreeFit { fit, snr, is_poor, .. } = point;
            // Set free, what a brighter one's light had hidden from it may turn out to be that one.
            if fitted[..i].iter().any(|f| f.place().distance(point.place()) < APART_SIGMAS * sigma) {
                continue;
            }
            match self.doubt_about(&fit, is_poor, &last, sigma) {
                None => {
                    let reported = detection(&fit, &last, self.frame, self.field, snr, None, None, [0.0; 2]);
                    points.detections.push(reported.detection);
                    points.believed.push(Believed::new(fit, Origin::Found));
                }
                Some(reason) => points.rejected.push(rejected(&fit, snr, reason)),
            }
        }
        Ok(points)
    }

    /// What one point alone does not explain may be two: the best other one in what is left around those that fit poorly.
    fn partners(
        &self,
        backend: &mut dyn Backend,
        fitted: &[FreeFit],
        held: &FitSettings,
    ) -> Result<Vec<(TrailFit, f64)>> {
        if !fitted.iter().any(|f| f.is_poor) {
            return Ok(Vec::new());
        }
        let sigma = effective_sigma(self.field.psf_sigma_px);
        // A free width would have swallowed the other.
        let models: Vec<Trail> = fitted.iter().map(|f| f.start.trail).collect();
        backend.add_trails(&models, -1.0)?;
        let left = stars::find_sources(backend, self.field.psf_sigma_px, self.threshold_snr, self.weigh)?;
        let near = |place: Point| {
            fitted.iter().position(|f| f.is_poor && f.start.trail.segment.start.distance(place) < PAIR_SIGMAS * sigma)
        };
        let left = left.iter().map(|s| s.position()).filter(|place| near(*place).is_some());
        let fits = self.fit(backend, left.map(|place| start(place, sigma)), held)?;
        backend.add_trails(&models, 1.0)?;
        let mut best: Vec<Option<(TrailFit, f64)>> = vec![None; fitted.len()];
        for fit in fits {
            let place = fit.trail.segment.start;
            let snr = self.snr(&fit, &models);
            let is_apart = models.iter().all(|m| m.segment.start.distance(place) > APART_SIGMAS * sigma);
            let Some(i) = near(place).filter(|_| is_apart && snr >= self.threshold_snr) else { continue };
            if best[i].is_none_or(|(_, other)| snr > other) {
                best[i] = Some((fit, snr));
            }
        }
        Ok(best.into_iter().flatten().collect())
    }

    /// Fits points with width and background free and all others taken out, those that share light in turns.
    fn fit_free(
        &self,
        backend: &mut dyn Backend,
        points: &[(TrailFit, f64)],
        last: &FitSettings,
    ) -> Result<Vec<FreeFit>> {
        let near_px = 2.0 * last.reach_px;
        let share_light = |a: &Segment, b: &Segment| a.start.distance(b.start) < near_px;
        let trails = |fits: &[TrailFit]| fits.iter().map(|f| f.trail).collect::<Vec<_>>();
        let mut fits: Vec<TrailFit> = points.iter().map(|(fit, _)| *fit).collect();
        backend.add_trails(&trails(&fits), -1.0)?;
        // The photon noise of each fit is that of the flux before.
        for _ in 0..FREE_ROUNDS {
            fit_in_turns(backend, &mut fits, last, near_px, share_light, |_, _| true)?;
        }
        let sigma = effective_sigma(self.field.psf_sigma_px);
        let core = FitSettings { reach_px: CORE_SIGMAS * sigma, max_iterations: 0, ..*last };
        let cores = backend.fit(&fits.iter().map(again).collect::<Vec<_>>(), &core)?;
        backend.add_trails(&trails(&fits), 1.0)?;
        let free = points.iter().zip(fits).zip(cores);
        Ok(free
            .map(|((&(start, snr), fit), core_fit)| {
                // Further off, what misfits may be another's light; in the core, that of a bright point, which is no
                // Gaussian.
                let is_poor = self.drowns(&fit, snr, &fit, last) && self.drowns(&fit, snr, &core_fit, &core);
                FreeFit { start, snr, fit, is_poor }
            })
            .collect())
    }

    fn fit(
        &self,
        backend: &mut dyn Backend,
        starts: impl Iterator<Item = Trail>,
        settings: &FitSettings,
    ) -> Result<Vec<TrailFit>> {
        let requests: Vec<FitRequest> = starts.map(|start| FitRequest { start, subtracted: false }).collect();
        backend.fit(&requests, settings)
    }

    /// S/N in the noise that is there: that of the sky, and what the light of trails and of some points adds.
    fn snr(&self, fit: &TrailFit, points: &[Trail]) -> f64 {
        let light = self.trails.iter().chain(points).copied();
        fit.snr / noise_of_light(light, fit.trail.segment.start, self.sky_noise, &self.doubt)
    }

    /// A star's trail there explains more of the light.
    fn is_rather_star(&self, backend: &mut dyn Backend, fit: &TrailFit) -> Result<bool> {
        let sigma = fit.trail.sigma_eff_px;
        let half_length = 2.0 * self.motion.length_px + 2.0 * REACH_SIGMAS * sigma;
        let place = fit.trail.segment.start;
        let step = STEP_SIGMAS * sigma;
        let mut strip = Strip::around(backend, place, half_length, REACH_SIGMAS * sigma, step, sigma, &self.motion)?;
        let near = |t: &&Trail| t.segment.distance_to(place) < half_length + REACH_SIGMAS * sigma;
        let near: Vec<&Trail> = self.trails.iter().filter(near).collect();
        let known: Vec<Source> = near.iter().map(|t| strip.source(t)).collect();
        known.iter().for_each(|s| strip.doubt_about(s));
        let holds_place = |s: &Source| {
            let end_px = s.begin_px + s.length_px;
            s.begin_px < 2.0 * sigma && end_px > -2.0 * sigma && s.across_px.abs() < 2.0 * sigma
        };
        let doubt = self.doubt.among_blends();
        let stars = strip.peaks(LEAST_SHARE * fit.snr, &doubt).into_iter().filter(holds_place);
        let explains = |star: Source| {
            let point = strip.best_point_on(&star, &doubt).map_or(0.0, |p| p.snr);
            star.snr.powi(2) + STAR_ODDS * self.noise_excess.powi(2) > point.powi(2)
        };
        if stars.into_iter().any(explains) {
            return Ok(true);
        }
        let point = Source { begin_px: 0.0, across_px: 0.0, length_px: 0.0, density: fit.trail.flux, snr: fit.snr };
        strip.add(&point, -1.0);
        // A trail of another length or direction is no star, and in the strip not where it lies in the frame.
        let stars = near.into_iter().zip(known).filter(|(t, _)| tracking::agrees(&t.segment, 0.0, &self.motion));
        let beside: Vec<Source> = stars.map(|(_, s)| s).filter(|s| in_line::is_beside(s, &point, &strip)).collect();
        Ok(beside
            .iter()
            .any(|star| in_line::two_stars(&mut strip, &self.doubt, self.noise_excess, star, &point).is_some()))
    }

    /// What is left of a bright trail is no point: it must stand out from what its own model leaves among the pixels of a
    /// fit, or from the light of trails, whichever is more, and not leave more there than a model that is as good as the
    /// stars'.
    fn drowns(&self, point: &TrailFit, snr: f64, seen: &TrailFit, settings: &FitSettings) -> bool {
        let sigma = effective_sigma(self.field.psf_sigma_px);
        let misfit = seen.misfit(settings);
        let noise = (1.0 + misfit * 4.0 * std::f64::consts::PI * sigma * sigma).sqrt();
        snr.min(point.snr / noise) < self.threshold_snr || leaves_too_much(misfit, point.snr, seen, &self.doubt)
    }

    fn doubt_about(&self, fit: &TrailFit, is_poor: bool, settings: &FitSettings, sigma: f64) -> Option<RejectReason> {
        let errors = fit.errors(settings);
        let ratio = fit.trail.sigma_eff_px / sigma;
        let error = errors.map_or(0.0, |e| e.sigma_eff_err) / sigma;
        let place = fit.trail.segment.start;
        let is_beside = self.trails.iter().any(|t| t.segment.distance_to(place) < BESIDE_SIGMAS * sigma);
        let most_width = if is_beside { MOST_WIDTH_BESIDE } else { MOST_WIDTH };
        if distance_to_border(fit.trail.segment.start, self.frame) < EDGE_WIDTHS * sigma {
            Some(RejectReason::FrameEdge)
        } else if ratio + 2.0 * error < self.judge.min_width {
            Some(RejectReason::HotPixel)
        } else if ratio - 1.5 * error > most_width {
            Some(RejectReason::Extended)
        } else if is_poor || errors.is_none_or(|e| fit.trail.flux < 3.0 * e.flux_err) {
            Some(RejectReason::PoorFit)
        } else {
            None
        }
    }
}

/// More misfit than a model would have that is as good for points as it is for the stars' trails.
pub(crate) fn leaves_too_much(misfit: f64, snr: f64, seen: &TrailFit, doubt: &Doubt) -> bool {
    let of_model = (OF_POINT * doubt.model_error * snr).powi(2) / seen.n_pixels.max(1.0);
    misfit > MOST_MISFIT.max(of_model)
}

fn start(place: Point, sigma_eff_px: f64) -> Trail {
    Trail { segment: Segment::new(place, place), flux: 0.0, background: 0.0, sigma_eff_px }
}

fn rejected(fit: &TrailFit, snr: f64, reason: RejectReason) -> Rejected {
    Rejected { segment: fit.trail.segment, snr, reason }
}
