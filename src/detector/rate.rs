//! The stages that follow where the stars are trails: with their common vector all of them are found and taken out, and
//! what is left is searched as any frame is.

use super::{Clock, Detector, Found, Look, normalise_anew};
use crate::Result;
use crate::backend::Backend;
use crate::detection::{PsfSource, Report};
use crate::frame::Frame;
use crate::pipeline::background::BackgroundMap;
use crate::pipeline::last_fits::{self, Among, Measured};
use crate::pipeline::lines::Lines;
use crate::pipeline::measure::{Shape, Trail};
use crate::pipeline::merge::{Believed, Search};
use crate::pipeline::points::PointSearch;
use crate::pipeline::psf::effective_sigma;
use crate::pipeline::report::{self, Findings};
use crate::pipeline::saturated::{self, SaturatedSource};
use crate::pipeline::star_trails::{self, Setting, StarTrails};
use crate::pipeline::stars::{self, StarField};
use crate::pipeline::threshold;
use crate::pipeline::tracking::StarMotion;

/// Trails of this S/N and more are told from stars before any star is known, and would pass for several.
const BRIGHT_SNR: f64 = 20.0;

/// Of this S/N and more a trail that stars explain less well may be taken for a target before faint stars are known. Below
/// it rows of stars pass for targets in most frames of a dense field.
const CLEAR_SNR: f64 = 11.0;

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

impl Detector {
    /// Bright stars and clear targets, then all stars, then what is left: streaks and points.
    pub(super) fn run_among_trails(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        mut first: FirstLook,
        mut clock: Clock,
    ) -> Result<Report> {
        let config = &self.config;
        let mut setting = Setting {
            width: frame.width(),
            height: frame.height(),
            psf_sigma_px: first.psf_sigma_px,
            psf_is_given: first.field.psf_source == PsfSource::Given,
            photon_variance: frame.gain_e_per_adu().map_or(0.0, |g| 1.0 / g),
            clip_sigmas: config.search.clip_sigmas,
            saturation: frame.saturation(),
        };
        // Bright stars alone, so that no faint ones are made of a target; and what is clearly a target.
        let clear = report::clear_targets(
            first.found.measured.clone(),
            &first.motion,
            effective_sigma(setting.psf_sigma_px),
            BRIGHT_SNR,
            None,
            &[],
        );
        let (sky, mut stars) = self.find_bright(backend, frame, &mut first, &mut setting, &measured_trails(&clear))?;
        backend.add_trails(&measured_trails(&clear), 1.0)?;
        let (_, found) = self.search_among_trails(backend, frame, sky, &first.field, &stars)?;
        let bright = believed_trails(&stars.trails);
        let sigma = effective_sigma(stars.psf_sigma_px);
        let mut targets = report::clear_targets(found.measured, &stars.motion, sigma, CLEAR_SNR, Some(&bright), &clear);
        clock.stage("clear_targets");

        // All stars, and what they leave.
        let without = measured_trails(&targets);
        self.begin_anew(backend, frame, &first, &found.sky, &without)?;
        stars.find_all(backend, &setting, &without)?;
        stars.put_back_rows(backend)?;
        clock.stage("stars");
        let (field, found) = self.search_among_trails(backend, frame, found.sky, &first.field, &stars)?;
        let known = believed_trails(&stars.trails);
        let mode = stars.motion.mode();
        targets
            .extend(found.measured.into_iter().filter(|m| m.is_target(&mode) && !m.is_remnant(&known, &stars.motion)));
        let covered = stars.covered(&setting);
        targets.retain(|m| !m.may_be_row(&stars.motion, covered));
        clock.stage("search");

        // Stars, targets and points have shared some light: each is found or fitted again without the others'.
        let excess = found.thresholds.noise_excess;
        let threshold_snr = threshold::for_points(
            (1.0 - Look::AmongTrails(stars.motion, 1.0).share()) * config.false_alarms_per_frame,
            frame.width() * frame.height(),
            field.psf_sigma_px,
            excess,
        );
        let sky_noise = f64::from(found.sky.typical_noise);
        let find_points = |backend: &mut dyn Backend, stars: &StarTrails, trails: &[Trail]| {
            PointSearch {
                frame,
                field: &field,
                weigh: &config.weigh,
                judge: &config.judge,
                motion: stars.motion,
                trails,
                doubt: stars.doubt,
                sky_noise,
                threshold_snr,
                noise_excess: excess,
            }
            .find(backend)
        };
        let mut targets: Vec<Believed> = targets.iter().map(Measured::as_believed).collect();
        let without = believed_trails(&targets);
        self.begin_anew(backend, frame, &first, &found.sky, &without)?;
        stars.find_all(backend, &setting, &without)?;
        backend.weigh_out(&stars.spoiled(setting.saturation))?;
        let trails = [believed_trails(&stars.trails), without].concat();
        let mut points = find_points(backend, &stars, &trails)?.believed;
        backend.add_trails(&believed_trails(&points), -1.0)?;
        backend.weigh_out(&stars.hidden())?;
        stars.fit_targets_again(backend, &mut targets, Shape::Trail)?;
        clock.stage("points");

        let without = [believed_trails(&targets), believed_trails(&points)].concat();
        self.begin_anew(backend, frame, &first, &found.sky, &without)?;
        stars.find_all(backend, &setting, &without)?;
        stars.part_from(backend, &mut points)?;
        let measure = |backend: &mut dyn Backend, trails: Vec<Believed>, among: Among<'_>| {
            last_fits::measure_trails(backend, frame, &field, &found.chains, config.tracking, trails, among)
        };
        let mut measured = measure(backend, stars.trails.clone(), Among::TheStars(&stars.motion))?;
        backend.add_trails(&believed_trails(&stars.trails), -1.0)?;
        backend.weigh_out(&[stars.spoiled(setting.saturation), stars.hidden()].concat())?;
        stars.fit_targets_again(backend, &mut targets, Shape::Trail)?;
        measured.extend(measure(backend, targets, Among::Left)?);

        let mut findings =
            Findings::new(frame, &field, config, found.thresholds, found.chains, found.longest_px, found.uneven);
        findings.judge_trails(measured, Some(stars.motion.mode()), threshold_snr);
        findings.add_spilled(&first.field, |bleed| first.saturated.iter().any(|source| source.holds(bleed)));
        for source in &first.saturated {
            findings.add_summed(source.report(&stars.motion, frame, &field));
        }
        self.begin_anew(backend, frame, &first, &found.sky, &findings.trails)?;
        backend.weigh_out(&stars.spoiled(setting.saturation))?;
        let points = find_points(backend, &stars, &findings.trails)?;
        findings.add_points(points);
        clock.stage("measure");
        Ok(findings.into_report(self.device_name(), clock.stages, clock.begin))
    }

    /// Bright stars, and the sky without them. With too narrow a PSF a star is found as several side by side, each narrower
    /// than it is, and what is saturated has another shape: so they are looked for until the width is theirs.
    fn find_bright(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        first: &mut FirstLook,
        setting: &mut Setting,
        without: &[Trail],
    ) -> Result<(BackgroundMap, StarTrails)> {
        let mut rounds = 0;
        loop {
            let mut sky = first.sky.clone();
            self.begin_anew(backend, frame, first, &sky, without)?;
            let stars = star_trails::find_bright(backend, &mut sky, setting, first.motion, &first.saturated)?;
            rounds += 1;
            if rounds == WIDTH_ROUNDS || (stars.psf_sigma_px / setting.psf_sigma_px - 1.0).abs() < SAME_WIDTH {
                return Ok((sky, stars));
            }
            setting.psf_sigma_px = stars.psf_sigma_px;
            first.motion = stars.motion;
            first.saturated = saturated::find(frame, &first.sky, &first.motion, setting.psf_sigma_px);
        }
    }

    /// The frame's residual image as at first, but for defects, and for some trails that are taken out.
    fn begin_anew(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        first: &FirstLook,
        sky: &BackgroundMap,
        without: &[Trail],
    ) -> Result<()> {
        normalise_anew(backend, frame, sky, &first.lines)?;
        stars::weigh_out_defects(backend, &first.field)?;
        backend.weigh_out(&first.saturated.iter().flat_map(SaturatedSource::footprints).collect::<Vec<_>>())?;
        backend.add_trails(without, -1.0)
    }

    /// Streaks in what the stars leave: what is round in it is weighed out as in any frame.
    fn search_among_trails(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        sky: BackgroundMap,
        before: &StarField,
        stars: &StarTrails,
    ) -> Result<(StarField, Found)> {
        backend.weigh_out(&stars.hidden())?;
        backend.weigh_out(&stars.spoiled(frame.saturation()))?;
        let mut field = stars::survey(backend, sky.mesh, Some(stars.psf_sigma_px), &self.config.weigh)?;
        field.psf_source = match stars.n_widths {
            0 => before.psf_source,
            count => PsfSource::Trails { count },
        };
        let weighed = self.weigh(backend, sky, &field)?;
        let mut search =
            self.begin_search(backend, frame, weighed, &field, Look::AmongTrails(stars.motion, stars.scatter))?;
        let trails: Vec<Believed> = search.find_trails()?;
        let longest_px = search.segments.longest_px();
        let Search { sky, thresholds, chains, uneven, .. } = search;
        let measured =
            last_fits::measure_trails(backend, frame, &field, &chains, self.config.tracking, trails, Among::Left)?;
        Ok((field, Found { measured, sky, thresholds, chains, longest_px, uneven }))
    }
}

fn believed_trails(believed: &[Believed]) -> Vec<Trail> {
    believed.iter().map(Believed::trail).collect()
}

fn measured_trails(measured: &[Measured]) -> Vec<Trail> {
    measured.iter().map(|m| m.trail).collect()
}
