//! The stages of one frame, in a row: what a detector does for each of its ways to be asked.

use std::sync::Arc;
use std::time::Instant;

use super::rate::{self, FirstLook};
use super::{Detector, lock};
use crate::backend::{Backend, TileSource};
use crate::error::Result;
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::{self, BackgroundMap, Mesh};
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::clear_targets;
use crate::pipeline::empty;
use crate::pipeline::last_fits;
use crate::pipeline::lines::{self, Lines};
use crate::pipeline::merge::Search;
use crate::pipeline::psf::{PsfKernel, effective_sigma};
use crate::pipeline::report::{self, Findings};
use crate::pipeline::saturated;
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::stars::{self, StarField};
use crate::pipeline::threshold::{Scatter, Thresholds};
use crate::pipeline::tracking::{StarMotion, Tracking};
use crate::pipeline::uneven::UnevenSky;
use crate::report::{FrameFlag, PsfSource, Report, TrackingMode};

/// PSF widths are rounded to this, so that the segment set of one frame serves the next.
const PSF_STEP_PX: f64 = 0.02;

impl Detector {
    /// All stages in a row, and the times of what the backend did for them.
    pub(super) fn run(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        places: Option<&[Segment]>,
        psf: Option<(f64, PsfSource)>,
    ) -> Result<Report> {
        self.config.tracking.validate_for(frame.width(), frame.height())?;
        backend.take_times();
        // That a clock cannot be read spoils no report; a lost device is noticed soon enough.
        backend.take_kernel_times().unwrap_or_default();
        let clock = Clock::start();
        let (frame, has_empty_areas) = empty::leave_out(frame)?;
        let mut report = self.run_stages(backend, &frame, places, psf, clock)?;
        if has_empty_areas {
            report.flags.push(FrameFlag::EmptyAreas);
        }
        Ok(Report {
            operations_ms: backend.take_times(),
            kernels_ms: backend.take_kernel_times().unwrap_or_default(),
            ..report
        })
    }

    /// All stages in a row. With `places` they take the place of the coarse search, with `psf` that is the PSF's width.
    pub(super) fn run_stages(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        places: Option<&[Segment]>,
        psf: Option<(f64, PsfSource)>,
        mut clock: Clock,
    ) -> Result<Report> {
        let config = &self.config;
        let (sky, lines) = match self.measure_sky(backend, frame, &mut clock)? {
            Ok(sky) => sky,
            Err(flag) => return Ok(self.empty_report(frame, flag, clock)),
        };

        let given = psf.or(config.psf_sigma_px.map(|sigma| (sigma, PsfSource::Given)));
        let mut field = self.survey(backend, &sky, given, self.stars_may_trail())?;
        let weighed = self.weigh(backend, sky.clone(), &field)?;
        clock.stage("weigh");

        let look = places.map_or(Look::First, |places| Look::At(places.to_vec()));
        let mut found = self.search(backend, frame, weighed, &field, look)?;
        let mode = report::tracking_of(config.tracking, &found.on_even_sky());
        if let (Some(motion), None) = (StarMotion::of(&mode), places) {
            clock.stage("first_look");
            let from_trails = stars::psf_from_trails(field.psf_sigma_px, &found.measured, false);
            let known = given.map(|(sigma, _)| sigma).or(from_trails.map(|(sigma, _)| sigma));
            let psf_sigma_px = known.unwrap_or(field.psf_sigma_px);
            let saturated = saturated::find(frame, &sky, &motion, psf_sigma_px);
            let first = FirstLook { sky, lines, field, psf_sigma_px, found, saturated, motion };
            return self.run_among_trails(backend, frame, first, clock);
        }
        let look = places.map_or(Look::AmongPoints, |places| Look::At(places.to_vec()));
        if !found.is_complete || (field.seem_to_trail && look == Look::AmongPoints) {
            // Bright trails seemed to be the stars', and are not: they run beyond the frame, or the sky explains them.
            // Or the stars seemed to trail, and have no common vector.
            (field, found) = self.search_anew(backend, frame, (&sky, &lines), given, look.clone())?;
        }
        if stars::psf_is_doubtful(&field, mode != TrackingMode::Sidereal) {
            // No stars to measure the PSF on, but maybe bright trails: search again with their width. One too narrow cuts a
            // trail in several, each of which is narrower than the whole.
            for turn in 0..MOST_PSF_SEARCHES {
                let from_trails = stars::psf_from_trails(field.psf_sigma_px, &found.on_even_sky(), turn > 0);
                let Some((sigma, count)) = from_trails else { break };
                let told = Some((sigma, PsfSource::Trails { count }));
                (field, found) = self.search_anew(backend, frame, (&sky, &lines), told, look.clone())?;
            }
        }
        clock.stage("search");

        let mut findings =
            Findings::new(frame, &field, config, found.thresholds, found.chains, found.longest_px, found.uneven);
        let mut verdicts = findings.verdicts(&found.measured);
        if mode == TrackingMode::Sidereal {
            findings.find_galaxies(backend, &found.measured, &mut verdicts)?;
        }
        findings.sort(found.measured, verdicts, None, 0.0);
        clock.stage("measure");

        Ok(findings.into_report(self.device_name(), clock.stages, clock.begin))
    }

    /// Takes the frame in, measures its sky and takes it off; a flag says why where there is none.
    pub(super) fn measure_sky(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        clock: &mut Clock,
    ) -> Result<std::result::Result<(BackgroundMap, Lines), FrameFlag>> {
        let (width, height) = (frame.width(), frame.height());
        backend.prepare(width, height)?;
        backend.ingest(frame)?;
        clock.stage("ingest");

        let (mut lines, blocks) = lines::leave_dark_borders(backend, width, height)?;
        let mesh = Mesh::new(width, height, self.config.background.mesh_px);
        let mut sky = background::draw_map(backend, mesh)?;
        // Jumps bend the map: it is drawn anew without those of the columns, then of the rows, and of what these have hidden.
        for turn in 0..=MOST_TURNS {
            let Ok(map) = &sky else { break };
            let Some(single) = lines::with_steps(backend, map, &blocks, &lines)? else { break };
            let Some(jumps) = lines::with_jumps(&single, &lines).filter(|_| turn < MOST_TURNS) else {
                lines::take_off_steps(backend, &single, &mut lines)?;
                break;
            };
            backend.ingest(frame)?;
            backend.take_off_lines(&jumps)?;
            sky = background::draw_map(backend, mesh)?;
            lines = jumps;
        }
        clock.stage("background");
        Ok(sky.map(|map| (map, lines)))
    }

    /// Unless they are said to be points.
    pub(super) fn stars_may_trail(&self) -> bool {
        self.config.tracking != Tracking::Sidereal
    }

    /// The compact sources, by a PSF whose width may be known.
    pub(super) fn survey(
        &self,
        backend: &mut dyn Backend,
        sky: &BackgroundMap,
        psf: Option<(f64, PsfSource)>,
        may_trail: bool,
    ) -> Result<StarField> {
        let given = psf.map(|(sigma, _)| sigma);
        let mut field = stars::survey(backend, sky.mesh, given, may_trail, &self.config.weigh)?;
        field.psf_source = psf.map_or(field.psf_source, |(_, source)| source);
        Ok(field)
    }

    /// Weighs out the sources of the field, and measures the sky without them.
    pub(super) fn weigh(&self, backend: &mut dyn Backend, sky: BackgroundMap, field: &StarField) -> Result<Weighed> {
        backend.weigh_out(&field.footprints)?;
        if field.footprints.is_empty() && field.scatter.excess == 1.0 {
            // Where the PSF was measured on stars, it was that of another width.
            let is_current = !matches!(field.psf_source, PsfSource::Stars { .. });
            let scatter = is_current.then_some(field.scatter);
            let Some(raised) = sky.raised(&field.filtered) else { return Ok(Weighed { sky, scatter }) };
            backend.normalise(&raised.after(&sky))?;
            return Ok(Weighed { sky: raised, scatter });
        }
        backend.filter(&PsfKernel::new(field.psf_sigma_px), self.config.search.clip_sigmas as f32, false)?;
        Ok(Weighed { sky: background::measure_again(backend, &sky, false)?.unwrap_or(sky), scatter: None })
    }

    /// Finds and measures the trails in what has not been weighed out.
    pub(super) fn search(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        weighed: Weighed,
        field: &StarField,
        look: Look,
    ) -> Result<Found> {
        let mut search = self.begin_search(backend, frame, weighed, field, look)?;
        let trails = search.find_trails()?;
        let motion = StarMotion::of(&search.mode_of(&trails)).filter(|_| !search.is_complete);
        let longest_px = search.segments.longest_px();
        let Search { sky, thresholds, chains, uneven, is_complete, .. } = search;
        let (trails, may_be_clear) = match &motion {
            Some(motion) => clear_targets::enough_of_first_look(trails, motion, rate::BRIGHT_SNR),
            None => (trails, Vec::new()),
        };
        let n_trails = trails.len();
        let mut measured = last_fits::measure_trails(
            backend,
            frame,
            field,
            &chains,
            motion.map_or(self.config.tracking, |m| m.tracking()),
            [trails, may_be_clear].concat(),
            last_fits::Among::All,
        )?;
        let may_be_clear = measured.split_off(n_trails);
        Ok(Found { measured, may_be_clear, is_complete, sky, thresholds, chains, longest_px, uneven })
    }

    /// The same from the frame as it was taken in, its sky known, with a PSF width that may be given.
    pub(super) fn search_anew(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        (sky, lines): (&BackgroundMap, &Lines),
        psf: Option<(f64, PsfSource)>,
        look: Look,
    ) -> Result<(StarField, Found)> {
        normalise_anew(backend, frame, sky, lines)?;
        let field = self.survey(backend, sky, psf, look != Look::AmongPoints && self.stars_may_trail())?;
        let weighed = self.weigh(backend, sky.clone(), &field)?;
        let found = self.search(backend, frame, weighed, &field, look)?;
        Ok((field, found))
    }

    /// Filters what has not been weighed out, and sets the thresholds.
    pub(super) fn begin_search<'a>(
        &'a self,
        backend: &'a mut dyn Backend,
        frame: &Frame<'_>,
        weighed: Weighed,
        field: &StarField,
        look: Look,
    ) -> Result<Search<'a>> {
        let (width, height) = (frame.width(), frame.height());
        let segments = self.segment_set(&*backend, width, height, field.psf_sigma_px);
        let uneven = UnevenSky::measure(backend, &weighed.sky)?;
        backend.filter(&segments.kernel, self.config.search.clip_sigmas as f32, false)?;
        let Weighed { sky, scatter } = weighed;
        let Scatter { excess, usable } = match scatter {
            Some(scatter) => scatter,
            None => {
                let looked_at = sky.mesh.with_half_of_rows();
                let tiles = backend.tile_statistics(looked_at, TileSource::Filtered)?;
                Scatter::of(&tiles, looked_at, &segments.kernel)
            }
        };
        let excess = match look {
            Look::AmongTrails(_, light) => excess.max(if light > 1.03 { light.min(MOST_SCATTER) } else { 1.0 }),
            _ => excess,
        };
        let masked = 1.0 - usable;
        let false_alarms = look.share() * self.config.false_alarms_per_frame;
        let thresholds = Thresholds::new(false_alarms, width, height, field.psf_sigma_px, excess);
        let segments_sigma = segments.kernel.sigma_eff_px;
        let is_first_look = look == Look::First && self.config.tracking != Tracking::Sidereal;
        let stars_are_out = matches!(look, Look::AmongTrails(..));
        let trails_are_many = !stars_are_out && stars::may_be_trails(field.elongated.len(), field.n_sources);
        let (places, tracking) = match look {
            Look::First => (None, self.config.tracking),
            Look::AmongPoints => (None, Tracking::Sidereal),
            Look::At(places) => (Some(places), self.config.tracking),
            Look::AmongTrails(motion, _) => (None, motion.tracking()),
        };
        Ok(Search {
            places,
            backend,
            sky,
            sky_is_current: true,
            segments,
            thresholds,
            chains: ChainPrior::new(field.n_sources, width * height, segments_sigma, excess),
            uneven,
            noise_excess: excess,
            elongated: field.elongated.clone(),
            trails_are_many,
            config: &self.config.search,
            tracking,
            is_first_look,
            is_complete: true,
            weighted: masked > LEAST_MASKED,
            photon_variance: frame.gain_e_per_adu().map_or(0.0, |g| 1.0 / g),
        })
    }

    pub(super) fn segment_set(
        &self,
        backend: &dyn Backend,
        width: usize,
        height: usize,
        psf_sigma_px: f64,
    ) -> Arc<SegmentSet> {
        let sigma = (psf_sigma_px / PSF_STEP_PX).round().max(1.0) * PSF_STEP_PX;
        let mut cached = lock(&self.segments);
        let fits = |s: &&Arc<SegmentSet>| {
            (s.width, s.height) == (width, height) && (s.kernel.sigma_eff_px - effective_sigma(sigma)).abs() < 1e-9
        };
        if let Some(set) = cached.as_ref().filter(fits) {
            return Arc::clone(set);
        }
        let (wedges, nodes) = backend.task_size();
        let set = Arc::new(SegmentSet::new(width, height, PsfKernel::new(sigma), wedges, nodes));
        *cached = Some(Arc::clone(&set));
        set
    }

    pub(super) fn empty_report(&self, frame: &Frame<'_>, flag: FrameFlag, clock: Clock) -> Report {
        let sigma = self.config.psf_sigma_px;
        Report {
            width: frame.width(),
            height: frame.height(),
            device: self.device_name().to_owned(),
            tracking: TrackingMode::Sidereal,
            psf_sigma_px: sigma.unwrap_or(stars::ASSUMED_SIGMA_PX),
            psf_source: if sigma.is_some() { PsfSource::Given } else { PsfSource::Assumed },
            times: frame.times().cloned(),
            exposure_secs: frame.exposure_secs(),
            threshold_snr: f64::INFINITY,
            points_threshold_snr: None,
            detections: Vec::new(),
            rejected: Vec::new(),
            flags: vec![flag],
            total_ms: clock.begin.elapsed().as_secs_f64() * 1e3,
            stages_ms: clock.stages,
            operations_ms: Vec::new(),
            kernels_ms: Vec::new(),
        }
    }
}

/// How often the PSF's width is taken from trails.
const MOST_PSF_SEARCHES: usize = 4;

/// How often jumps between lines are looked for.
const MOST_TURNS: usize = 4;

/// With fewer masked pixels than this the search takes them for zeros, at the cost of a part of its S/N that the
/// refinement makes good; with more the transform of the weights, which takes five times as long, is worth it.
const LEAST_MASKED: f64 = 0.2;

/// Unresolved star trails raise the thresholds by this factor at most: where long ones cover the frame their scatter
/// says how much light there is, not how often it makes a line of another kind.
const MOST_SCATTER: f64 = 1.2;

/// Takes the frame in again, and the known sky off it.
pub(super) fn normalise_anew(
    backend: &mut dyn Backend,
    frame: &Frame<'_>,
    sky: &BackgroundMap,
    lines: &Lines,
) -> Result<()> {
    backend.ingest(frame)?;
    backend.normalise(sky)?;
    if lines.is_none() { Ok(()) } else { backend.take_off_lines(lines) }
}

/// A frame whose sources have been weighed out.
pub(super) struct Weighed {
    pub(super) sky: BackgroundMap,
    /// Of the filtered image, where that is known: nothing was weighed out since, and the PSF is the same.
    pub(super) scatter: Option<Scatter>,
}

/// What a search is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Look {
    /// All trails, or those that tell that the stars are trails.
    First,
    /// All trails: the stars are points.
    AmongPoints,
    /// These places alone.
    At(Vec<Segment>),
    /// What is left when the stars' trails are taken out, with the scatter that unresolved ones leave.
    AmongTrails(StarMotion, f64),
}

impl Look {
    /// Its share of the false alarms: among star trails points are looked for as well, and have the other half.
    pub(super) fn share(&self) -> f64 {
        if matches!(self, Self::AmongTrails(..)) { 0.5 } else { 1.0 }
    }
}

/// What the search of one frame brings back.
pub(super) struct Found {
    /// All, or of a first look that told the stars' vector enough.
    pub(super) measured: Vec<last_fits::Measured>,
    /// Of the others those that may be clear targets among stars that trail.
    pub(super) may_be_clear: Vec<last_fits::Measured>,
    /// These are not only the bright ones that seem to tell that the stars are trails.
    pub(super) is_complete: bool,
    /// As last measured, without the trails.
    pub(super) sky: BackgroundMap,
    pub(super) thresholds: Thresholds,
    pub(super) chains: ChainPrior,
    pub(super) longest_px: f64,
    pub(super) uneven: UnevenSky,
}

impl Found {
    /// Those that the sky does not explain.
    pub(super) fn on_even_sky(&self) -> Vec<last_fits::Measured> {
        let is_explained =
            |m: &last_fits::Measured| self.uneven.explains(&m.detection.segment, m.detection.snr, m.sigma_eff_px);
        self.measured.iter().filter(|m| !is_explained(m)).cloned().collect()
    }
}

/// Wall time, stage by stage.
pub(super) struct Clock {
    pub(super) begin: Instant,
    pub(super) last: Instant,
    pub(super) stages: Vec<(&'static str, f64)>,
}

impl Clock {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { begin: now, last: now, stages: Vec::new() }
    }

    pub(super) fn stage(&mut self, name: &'static str) {
        self.stages.push((name, self.last.elapsed().as_secs_f64() * 1e3));
        self.last = Instant::now();
    }
}
