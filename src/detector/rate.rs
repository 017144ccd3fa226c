//! The stages that follow where the stars are trails: with their common vector all of them are found and taken out, and
//! what is left is searched as any frame is.

use super::Detector;
use super::stages::{Clock, Found, Look, normalise_anew};
use crate::Result;
use crate::backend::Backend;
use crate::frame::Frame;
use crate::pipeline::background::BackgroundMap;
use crate::pipeline::believed::Believed;
use crate::pipeline::clear_targets::{self, clear_targets};
use crate::pipeline::last_fits::{self, Among, Measured};
use crate::pipeline::lines::Lines;
use crate::pipeline::measure::{Shape, Trail};
use crate::pipeline::merge::Search;
use crate::pipeline::points::{PointSearch, Points};
use crate::pipeline::psf::effective_sigma;
use crate::pipeline::report::Findings;
use crate::pipeline::saturated::{self, SaturatedSource};
use crate::pipeline::star_trails::{self, Setting, StarTrails};
use crate::pipeline::stars::{self, StarField};
use crate::pipeline::threshold;
use crate::pipeline::tracking::StarMotion;
use crate::pipeline::weigh::Footprint;
use crate::report::{FrameFlag, PsfSource, Report};

/// Trails of this S/N and more are told from stars before any star is known, and would pass for several.
pub(super) const BRIGHT_SNR: f64 = 20.0;

/// Of this S/N and more a trail that stars explain less well may be taken for a target before faint stars are known. Below
/// it rows of stars pass for targets in most frames of a dense field.
const CLEAR_SNR: f64 = 11.0;

/// What is fainter than this part of it at first does not get there: it is left to the last search, as is what has less than
/// that beside stars on its track.
const FIRST_SHARE: f64 = 0.7;

/// Bright stars are looked for again with the PSF width that they tell, so often at most, until it changes by less than
/// this part.
const WIDTH_ROUNDS: usize = 4;
const SAME_WIDTH: f64 = 0.05;

/// What is known once bright trails have told that the stars are trails.
pub(super) struct FirstLook {
    /// As first measured, with all stars in it.
    pub(super) sky: BackgroundMap,
    pub(super) lines: Lines,
    pub(super) field: StarField,
    /// As given, or as the bright trails tell.
    pub(super) psf_sigma_px: f64,
    pub(super) found: Found,
    pub(super) saturated: Vec<SaturatedSource>,
    pub(super) motion: StarMotion,
}

/// A frame in which the stars are trails, on its way through the stages.
struct RateFrame<'a> {
    detector: &'a Detector,
    backend: &'a mut dyn Backend,
    frame: &'a Frame<'a>,
    first: FirstLook,
    setting: Setting,
}

/// What the search has told that follows when all stars are known.
struct LastLook {
    field: StarField,
    found: Found,
    noise: Noise,
}

/// What points stand out from.
#[derive(Clone, Copy)]
struct Noise {
    /// The typical noise of a pixel.
    sky: f64,
    /// Scatter over that of white noise.
    excess: f64,
    /// Points below this S/N may be noise.
    points_snr: f64,
}

impl Detector {
    /// Bright stars and clear targets, then all stars, then what is left: streaks and points.
    pub(super) fn run_among_trails(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        first: FirstLook,
        mut clock: Clock,
    ) -> Result<Report> {
        let setting = Setting {
            width: frame.width(),
            height: frame.height(),
            psf_sigma_px: first.psf_sigma_px,
            psf_is_given: first.field.psf_source == PsfSource::Given,
            photon_variance: frame.gain_e_per_adu().map_or(0.0, |g| 1.0 / g),
            clip_sigmas: self.config.search.clip_sigmas,
            saturation: frame.saturation(),
        };
        let mut work = RateFrame { detector: self, backend, frame, first, setting };
        let (mut stars, sky, clear) = work.find_clear_targets()?;
        clock.stage("clear_targets");

        work.find_stars(&mut stars, &sky, &measured_trails(&clear))?;
        stars.put_back_rows(work.backend)?;
        clock.stage("stars");

        let last = work.search_last(sky, &stars)?;
        let mut targets = work.choose_targets(&last.found, clear, &stars);
        clock.stage("search");

        work.share_light(&last, &mut stars, &mut targets)?;
        clock.stage("points");

        work.measure(last, &stars, targets, clock)
    }
}

impl RateFrame<'_> {
    /// Bright stars, and what is clearly a target, so that no faint stars are made of it; with the sky without them.
    fn find_clear_targets(&mut self) -> Result<(StarTrails, BackgroundMap, Vec<Measured>)> {
        let Found { measured, may_be_clear, .. } = &self.first.found;
        let measured = [measured.clone(), may_be_clear.clone()].concat();
        let sigma = effective_sigma(self.setting.psf_sigma_px);
        let clear = clear_targets(measured, &self.first.motion, sigma, BRIGHT_SNR, None, &[]);
        let (sky, stars) = self.find_bright(&measured_trails(&clear))?;
        self.backend.add_trails(&measured_trails(&clear), 1.0)?;
        let may_be_clear = |trails| clear_targets::may_be_clear(trails, &stars.motion, CLEAR_SNR);
        let (_, found) = self.search(sky, &stars, FIRST_SHARE * CLEAR_SNR, may_be_clear)?;
        let bright = believed_trails(&stars.trails);
        let sigma = effective_sigma(stars.psf_sigma_px);
        let targets = clear_targets(found.measured, &stars.motion, sigma, CLEAR_SNR, Some(&bright), &clear);
        Ok((stars, found.sky, targets))
    }

    /// Bright stars, and the sky without them. With too narrow a PSF a star is found as several side by side, each narrower
    /// than it is, and what is saturated has another shape: so they are looked for until the width is theirs.
    fn find_bright(&mut self, without: &[Trail]) -> Result<(BackgroundMap, StarTrails)> {
        let mut rounds = 0;
        loop {
            let mut sky = self.first.sky.clone();
            self.begin_anew(&sky, without)?;
            let Self { backend, frame, first, setting, .. } = self;
            let stars = star_trails::find_bright(*backend, &mut sky, setting, first.motion, &first.saturated)?;
            rounds += 1;
            if rounds == WIDTH_ROUNDS || (stars.psf_sigma_px / setting.psf_sigma_px - 1.0).abs() < SAME_WIDTH {
                return Ok((sky, stars));
            }
            setting.psf_sigma_px = stars.psf_sigma_px;
            first.motion = stars.motion;
            first.saturated = saturated::find(frame, &first.sky, &first.motion, setting.psf_sigma_px);
        }
    }

    /// All stars, in the residual image without some other trails.
    fn find_stars(&mut self, stars: &mut StarTrails, sky: &BackgroundMap, without: &[Trail]) -> Result<()> {
        self.begin_anew(sky, without)?;
        stars.find_all(self.backend, &self.setting, without)
    }

    /// The stars as they are known, out of the residual image.
    fn leave_stars(&mut self, stars: &StarTrails, sky: &BackgroundMap) -> Result<()> {
        self.begin_anew(sky, &[])?;
        self.backend.add_trails(&believed_trails(&stars.trails), -1.0)
    }

    /// The residual image as at first, but for defects, and for some trails that are taken out.
    fn begin_anew(&mut self, sky: &BackgroundMap, without: &[Trail]) -> Result<()> {
        normalise_anew(self.backend, self.frame, sky, &self.first.lines)?;
        stars::weigh_out_defects(self.backend, &self.first.field)?;
        let saturated: Vec<Footprint> = self.first.saturated.iter().flat_map(SaturatedSource::footprints).collect();
        self.backend.weigh_out(&saturated)?;
        self.backend.add_trails(without, -1.0)
    }

    /// Streaks of some S/N and more in what the stars leave, those of them measured that are worth it: what is round in it
    /// is weighed out as in any frame.
    fn search(
        &mut self,
        sky: BackgroundMap,
        stars: &StarTrails,
        least_snr: f64,
        worth_measuring: impl FnOnce(Vec<Believed>) -> Vec<Believed>,
    ) -> Result<(StarField, Found)> {
        let Self { detector, backend, frame, first, setting } = self;
        let config = &detector.config;
        backend.weigh_out(&stars.hidden())?;
        backend.weigh_out(&stars.spoiled(setting.saturation))?;
        let mut field = stars::survey(*backend, sky.mesh, Some(stars.psf_sigma_px), false, &config.weigh)?;
        field.psf_source = match stars.n_widths {
            0 => first.field.psf_source,
            count => PsfSource::Trails { count },
        };
        let weighed = detector.weigh(*backend, sky, &field)?;
        let look = Look::AmongTrails(stars.motion, stars.scatter);
        let mut search = detector.begin_search(*backend, frame, weighed, &field, look)?;
        search.thresholds = search.thresholds.at_least(least_snr);
        let trails = worth_measuring(search.find_trails()?);
        let longest_px = search.segments.longest_px();
        let Search { sky, thresholds, chains, uneven, .. } = search;
        let measured =
            last_fits::measure_trails(*backend, frame, &field, &chains, config.tracking, trails, Among::Left(None))?;
        let may_be_clear = Vec::new();
        Ok((field, Found { measured, may_be_clear, is_complete: true, sky, thresholds, chains, longest_px, uneven }))
    }

    /// The search in what all stars leave.
    fn search_last(&mut self, sky: BackgroundMap, stars: &StarTrails) -> Result<LastLook> {
        let (field, found) = self.search(sky, stars, 0.0, |trails| trails)?;
        let share_of_points = 1.0 - Look::AmongTrails(stars.motion, 1.0).share();
        let excess = found.thresholds.noise_excess;
        let points_snr = threshold::for_points(
            share_of_points * self.detector.config.false_alarms_per_frame,
            self.setting.width * self.setting.height,
            field.psf_sigma_px,
            excess,
        );
        let noise = Noise { sky: f64::from(found.sky.typical_noise), excess, points_snr };
        Ok(LastLook { field, found, noise })
    }

    /// The clear targets and those that the last search has found, but for what may be stars.
    fn choose_targets(&self, found: &Found, clear: Vec<Measured>, stars: &StarTrails) -> Vec<Believed> {
        let known = believed_trails(&stars.trails);
        let mode = stars.motion.mode();
        let is_new = |m: &&Measured| m.is_target(&mode) && !m.is_remnant(&known, &stars.motion);
        let covered = stars.covered(&self.setting);
        let all = clear.iter().chain(found.measured.iter().filter(is_new));
        all.filter(|m| !m.may_be_row(&stars.motion, covered)).map(Measured::as_believed).collect()
    }

    /// Stars, targets and points have shared some light: each is found or fitted again without the others'. Where there are
    /// stars alone, they are found again once: the better models of the bright ones leave less.
    fn share_light(&mut self, last: &LastLook, stars: &mut StarTrails, targets: &mut [Believed]) -> Result<()> {
        let without = believed_trails(targets);
        self.find_stars(stars, &last.found.sky, &without)?;
        self.backend.weigh_out(&stars.spoiled(self.setting.saturation))?;
        let trails = [believed_trails(&stars.trails), without].concat();
        let mut points = self.find_points(&last.field, last.noise, stars, &trails)?.believed;
        self.backend.add_trails(&believed_trails(&points), -1.0)?;
        self.backend.weigh_out(&stars.hidden())?;
        stars.fit_targets_again(self.backend, targets, Shape::Trail)?;

        let without = [believed_trails(targets), believed_trails(&points)].concat();
        if without.is_empty() {
            return self.leave_stars(stars, &last.found.sky);
        }
        self.find_stars(stars, &last.found.sky, &without)?;
        stars.part_from(self.backend, &mut points)
    }

    /// Points in the residual image, from which everything else has been taken out.
    fn find_points(&mut self, field: &StarField, noise: Noise, stars: &StarTrails, trails: &[Trail]) -> Result<Points> {
        let config = &self.detector.config;
        PointSearch {
            frame: self.frame,
            field,
            weigh: &config.weigh,
            judge: &config.judge,
            motion: stars.motion,
            trails,
            doubt: stars.doubt,
            sky_noise: noise.sky,
            threshold_snr: noise.points_snr,
            noise_excess: noise.excess,
        }
        .find(self.backend)
    }

    /// Measures stars, targets and points, and judges them.
    fn measure(
        mut self,
        last: LastLook,
        stars: &StarTrails,
        mut targets: Vec<Believed>,
        mut clock: Clock,
    ) -> Result<Report> {
        let Self { detector, frame, .. } = self;
        let LastLook { field, found, noise } = last;
        let fit_last = |backend: &mut dyn Backend, trails: Vec<Believed>, among: Among<'_>| {
            let tracking = detector.config.tracking;
            last_fits::measure_trails(backend, frame, &field, &found.chains, tracking, trails, among)
        };
        let mut measured = fit_last(self.backend, stars.trails.clone(), Among::TheStars(&stars.motion))?;
        self.backend.add_trails(&believed_trails(&stars.trails), -1.0)?;
        let spoiled = stars.spoiled(self.setting.saturation);
        self.backend.weigh_out(&[spoiled.clone(), stars.hidden()].concat())?;
        let known = stars.known(believed_trails(&targets));
        stars.fit_targets_again(self.backend, &mut targets, Shape::Trail)?;
        measured.extend(fit_last(self.backend, targets, Among::Left(Some(&known)))?);

        let config = &detector.config;
        let mut findings =
            Findings::new(frame, &field, config, found.thresholds, found.chains, found.longest_px, found.uneven);
        let verdicts = findings.verdicts(&measured);
        findings.sort(measured, verdicts, Some(stars.motion.mode()), noise.points_snr);
        let FirstLook { saturated, field: first_field, .. } = &self.first;
        findings.add_spilled(first_field, |bleed| saturated.iter().any(|source| source.holds(bleed)));
        for source in saturated {
            findings.add_summed(source.report(&stars.motion, frame, &field));
        }
        self.begin_anew(&found.sky, &findings.trails)?;
        self.backend.weigh_out(&spoiled)?;
        let points = self.find_points(&field, noise, stars, &findings.trails)?;
        findings.add_points(points);
        clock.stage("measure");
        let mut report = findings.into_report(detector.device_name(), clock.stages, clock.begin);
        report.points_threshold_snr = Some(noise.points_snr);
        if stars.motion.n_stars == 0 {
            report.flags.push(FrameFlag::StarVectorUnseen);
        }
        Ok(report)
    }
}

fn believed_trails(believed: &[Believed]) -> Vec<Trail> {
    believed.iter().map(Believed::trail).collect()
}

fn measured_trails(measured: &[Measured]) -> Vec<Trail> {
    measured.iter().map(|m| m.trail).collect()
}
