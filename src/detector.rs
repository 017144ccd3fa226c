//! The detector: a script of the stages.

mod rate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::backend::timed::Timed;
use crate::backend::{Backend, TileSource};
use crate::detection::{FrameFlag, PsfSource, Report, TrackingMode};
use crate::device::{Device, Engine};
use crate::error::{Error, Result, require};
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::{self, BackgroundConfig, BackgroundMap, Mesh};
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::empty;
use crate::pipeline::judge::JudgeConfig;
use crate::pipeline::last_fits;
use crate::pipeline::lines::{self, Lines};
use crate::pipeline::merge::Search;
use crate::pipeline::psf::{PsfKernel, effective_sigma};
use crate::pipeline::report::{self, Findings};
use crate::pipeline::saturated;
use crate::pipeline::search::SearchConfig;
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::stars::{self, StarField};
use crate::pipeline::threshold::{Scatter, Thresholds};
use crate::pipeline::tracking::{StarMotion, Tracking};
use crate::pipeline::uneven::UnevenSky;
use crate::pipeline::weigh::WeighConfig;
use crate::reference::Reference;
use rate::FirstLook;

/// Everything that can be set. The default suits a raw frame of unknown origin.
///
/// ```
/// use skystreak::{Device, DetectorConfig};
///
/// let config = DetectorConfig { device: Device::Cpu, false_alarms_per_frame: 0.1, ..DetectorConfig::default() };
/// assert_eq!(config.psf_sigma_px, None);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DetectorConfig {
    /// Where to compute.
    pub device: Device,
    /// Gaussian width of the PSF, px; measured on each frame's stars, or bright trails, when not given.
    pub psf_sigma_px: Option<f64>,
    /// Expected number of false detections in a frame of pure noise: the only threshold there is.
    ///
    /// One in a hundred frames by default: a person who looks at every detection of a night is not bothered.
    pub false_alarms_per_frame: f64,
    /// How the telescope moved.
    pub tracking: Tracking,
    /// Sky and noise.
    pub background: BackgroundConfig,
    /// Stars and hot pixels.
    pub weigh: WeighConfig,
    /// What is searched for.
    pub search: SearchConfig,
    /// What is believed.
    pub judge: JudgeConfig,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        Self {
            device: Device::Auto,
            psf_sigma_px: None,
            false_alarms_per_frame: 0.01,
            tracking: Tracking::Auto,
            background: BackgroundConfig::default(),
            weigh: WeighConfig::default(),
            search: SearchConfig::default(),
            judge: JudgeConfig::default(),
        }
    }
}

impl DetectorConfig {
    fn validate(&self) -> Result<()> {
        if let Some(sigma) = self.psf_sigma_px {
            require("psf_sigma_px", sigma, 0.3..=8.0, "from 0.3 to 8")?;
        }
        require("false_alarms_per_frame", self.false_alarms_per_frame, 1e-6..=100.0, "from 1e-6 to 100")?;
        self.tracking.validate()?;
        self.background.validate()?;
        self.weigh.validate()?;
        self.search.validate()?;
        self.judge.validate()
    }
}

/// The sky of a frame, in the frame's unit, `[height, width]` row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Sky {
    /// Background level of every pixel.
    pub level: Vec<f32>,
    /// Standard deviation of the background noise of every pixel.
    pub noise: Vec<f32>,
}

/// A place the coarse step of the search proposes: a segment of the transform, before any fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Roughly where the light lies: ends to some quarter of the length, angle to about a PSF width over the length.
    pub segment: Segment,
    /// S/N of the light along it; of a real streak mostly a little below that of the fit.
    pub snr: f64,
}

/// Finds streaks in frames. Made once, used for many frames, from any thread.
///
/// Buffers and tables for a frame shape are made at its first frame and reused. Calls from several threads at once
/// each work on buffers of their own.
///
/// ```
/// use skystreak::{Detector, DetectorConfig, Device, Frame, Segment, simulate};
///
/// let (width, height) = (200, 160);
/// let mut pixels = simulate::gaussian_frame(width, height, 7, 1.0);
/// let truth = Segment::from_coordinates(40.0, 30.0, 140.0, 90.0);
/// simulate::add_streak(&mut pixels, width, &truth, 1.5, 700.0);
///
/// let config = DetectorConfig { device: Device::Cpu, psf_sigma_px: Some(1.5), ..DetectorConfig::default() };
/// let report = Detector::new(config)?.detect(&Frame::new(&pixels, width, height)?)?;
///
/// assert_eq!(report.detections.len(), 1);
/// assert!(report.detections[0].midpoint().distance(truth.midpoint()) < 2.0);
/// # Ok::<(), skystreak::Error>(())
/// ```
pub struct Detector {
    config: DetectorConfig,
    engine: Engine,
    /// Backends not in use, with their buffers.
    idle: Mutex<Vec<Timed>>,
    /// The segment set of the last frame shape and PSF: it takes a while to build.
    segments: Mutex<Option<Arc<SegmentSet>>>,
}

/// PSF widths are rounded to this, so that the segment set of one frame serves the next.
const PSF_STEP_PX: f64 = 0.02;

impl Detector {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// [`Error::Config`](crate::Error::Config) when a setting is out of its range, [`Error::Device`](crate::Error::Device) when there is no such device.
    pub fn new(config: DetectorConfig) -> Result<Self> {
        config.validate()?;
        let engine = Engine::open(&config.device)?;
        Ok(Self { config, engine, idle: Mutex::default(), segments: Mutex::default() })
    }

    /// The device that computes: an adapter's name, or `"cpu"`.
    #[must_use]
    pub fn device_name(&self) -> &str {
        self.engine.name()
    }

    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// Finds the streaks of one frame.
    ///
    /// A frame in which nothing can be found (no usable pixel, no noise, too small) gives an empty report with a
    /// [`FrameFlag`] that says why.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`](crate::Error::Limit) when the frame is too large for the device, [`Error::Device`](crate::Error::Device) when the device fails.
    pub fn detect(&self, frame: &Frame<'_>) -> Result<Report> {
        self.on_backend(|backend| self.run(backend, frame, None, None))
    }

    /// Finds what moves: the streaks of a frame without what stands still in others of the same pointing.
    ///
    /// As [`detect`](Self::detect), of the frame less the [`Reference`], scaled to its stars. The PSF width, where it is
    /// not given, is measured on the frame itself: a difference has no stars. What is left of bright stars is weighed
    /// out as stars are. See [`Reference`] for an example.
    ///
    /// # Errors
    ///
    /// As [`detect`](Self::detect), and [`Error::Input`](crate::Error::Input) when frame and reference differ in shape.
    pub fn detect_with(&self, frame: &Frame<'_>, reference: &Reference) -> Result<Report> {
        let difference = reference.taken_off(frame)?;
        self.on_backend(|backend| {
            let psf = self.measure_psf(backend, frame)?;
            self.run(backend, &difference, None, psf)
        })
    }

    /// Looks for streaks at given places only: where a prediction, another frame or a person says that there is one.
    ///
    /// As [`detect`](Self::detect), with these places in the stead of the coarse search. A place has to overlap the
    /// streak and point along it, to about two PSF widths at its ends; from there the ends are free, and what comes
    /// out may lie beside the place given or be brighter than what was meant. The thresholds are those of the blind
    /// search. A few places make far fewer false alarms than a whole frame, so that a much larger
    /// [`false_alarms_per_frame`](DetectorConfig::false_alarms_per_frame) is in order. Places outside of the frame
    /// are left out, point sources are not looked for.
    ///
    /// ```
    /// use skystreak::{Detector, DetectorConfig, Device, Frame, Segment, simulate};
    ///
    /// let mut pixels = simulate::gaussian_frame(200, 160, 7, 1.0);
    /// let truth = Segment::from_coordinates(40.0, 30.0, 140.0, 90.0);
    /// simulate::add_streak(&mut pixels, 200, &truth, 1.5, 400.0);
    /// let frame = Frame::new(&pixels, 200, 160)?;
    ///
    /// let config = DetectorConfig {
    ///     device: Device::Cpu,
    ///     psf_sigma_px: Some(1.5),
    ///     false_alarms_per_frame: 10.0,
    ///     ..DetectorConfig::default()
    /// };
    /// let predicted = Segment::from_coordinates(42.0, 32.0, 138.0, 90.0);
    /// let report = Detector::new(config)?.detect_at(&frame, &[predicted])?;
    /// assert_eq!(report.detections.len(), 1);
    /// # Ok::<(), skystreak::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`detect`](Self::detect), and [`Error::Input`](crate::Error::Input) when a coordinate is not finite.
    pub fn detect_at(&self, frame: &Frame<'_>, places: &[Segment]) -> Result<Report> {
        for place in places {
            let coordinates = [place.start.x, place.start.y, place.end.x, place.end.y];
            if !coordinates.iter().all(|c| c.is_finite()) {
                return Err(Error::Input(format!("the place {place:?}: coordinates must be finite")));
            }
        }
        self.on_backend(|backend| self.run(backend, frame, Some(places), None))
    }

    /// What the coarse step of the search proposes, best first, one for each place: for diagnosis.
    ///
    /// [`detect`](Self::detect) fits each of them and keeps what then meets the threshold, which lies 1.2 (1.6 for a
    /// PSF below 1 px) above the least S/N proposed here. Most are noise. A frame in which nothing can be found has
    /// none.
    ///
    /// ```
    /// use skystreak::{Detector, DetectorConfig, Device, Frame, Segment, simulate};
    ///
    /// let mut pixels = simulate::gaussian_frame(200, 160, 7, 1.0);
    /// let truth = Segment::from_coordinates(40.0, 30.0, 140.0, 90.0);
    /// simulate::add_streak(&mut pixels, 200, &truth, 1.5, 700.0);
    ///
    /// let config = DetectorConfig { device: Device::Cpu, psf_sigma_px: Some(1.5), ..DetectorConfig::default() };
    /// let candidates = Detector::new(config)?.candidates(&Frame::new(&pixels, 200, 160)?)?;
    /// assert!(candidates[0].segment.distance_to(truth.midpoint()) < 3.0);
    /// # Ok::<(), skystreak::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`detect`](Self::detect).
    pub fn candidates(&self, frame: &Frame<'_>) -> Result<Vec<Candidate>> {
        let (frame, _) = &empty::leave_out(frame)?;
        self.on_backend(|backend| {
            let Ok((sky, _)) = self.measure_sky(backend, frame, &mut Clock::start())? else { return Ok(Vec::new()) };
            let given = self.config.psf_sigma_px;
            let field = stars::survey(backend, sky.mesh, given, self.stars_may_trail(), &self.config.weigh)?;
            let weighed = self.weigh(backend, sky, &field)?;
            let peaks = self.begin_search(backend, frame, weighed, &field, Look::First)?.find_candidates(Some(0.0))?;
            Ok(peaks.into_iter().map(|p| Candidate { segment: p.segment, snr: p.snr }).collect())
        })
    }

    /// Works on a backend that nobody else uses. One whose stage failed is dropped, not reused.
    fn on_backend<T>(&self, work: impl FnOnce(&mut dyn Backend) -> Result<T>) -> Result<T> {
        let mut backend = self.idle_backend()?;
        let result = work(&mut backend)?;
        lock(&self.idle).push(backend);
        Ok(result)
    }

    fn idle_backend(&self) -> Result<Timed> {
        let idle = lock(&self.idle).pop();
        idle.map_or_else(|| self.engine.backend(), Ok)
    }

    /// Memory for one frame in computation, bytes.
    pub(crate) fn frame_bytes(&self, width: usize, height: usize) -> Result<u64> {
        let backend = self.idle_backend()?;
        let bytes = backend.frame_bytes(width, height);
        lock(&self.idle).push(backend);
        Ok(bytes)
    }

    /// Gives up the buffers of all but so many idle backends.
    pub(crate) fn keep_backends(&self, most: usize) {
        lock(&self.idle).truncate(most);
    }

    /// The sky level and its noise at every pixel, as the first stage estimates them: before sources are weighed out.
    ///
    /// None where no pixel is usable, or the usable ones have no noise.
    ///
    /// ```
    /// use skystreak::{Detector, DetectorConfig, Device, Frame, simulate};
    ///
    /// let pixels: Vec<f32> = simulate::gaussian_frame(128, 128, 1, 3.0).iter().map(|v| v + 500.0).collect();
    /// let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() })?;
    /// let sky = detector.sky(&Frame::new(&pixels, 128, 128)?)?.unwrap();
    /// assert!((sky.level[0] - 500.0).abs() < 1.0 && (sky.noise[0] - 3.0).abs() < 0.3);
    /// # Ok::<(), skystreak::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`detect`](Self::detect).
    pub fn sky(&self, frame: &Frame<'_>) -> Result<Option<Sky>> {
        let (frame, _) = &empty::leave_out(frame)?;
        let sky = self.on_backend(|backend| self.measure_sky(backend, frame, &mut Clock::start()))?;
        Ok(sky.ok().map(|(map, lines)| {
            let (mut level, noise) = map.evaluate();
            let width = map.mesh.width;
            level.iter_mut().enumerate().for_each(|(i, v)| *v += lines.offset(i % width, i / width));
            Sky { level, noise }
        }))
    }

    /// Width of the PSF of a frame, px, and where it comes from; none where it is given, or nothing can be measured.
    fn measure_psf(&self, backend: &mut dyn Backend, frame: &Frame<'_>) -> Result<Option<(f64, PsfSource)>> {
        if self.config.psf_sigma_px.is_some() {
            return Ok(None);
        }
        let (frame, _) = &empty::leave_out(frame)?;
        let Ok((sky, _)) = self.measure_sky(backend, frame, &mut Clock::start())? else { return Ok(None) };
        let field = stars::survey(backend, sky.mesh, None, self.stars_may_trail(), &self.config.weigh)?;
        Ok((field.psf_source != PsfSource::Assumed).then_some((field.psf_sigma_px, field.psf_source)))
    }

    /// All stages in a row, and the times of what the backend did for them.
    fn run(
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
    fn run_stages(
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
        findings.judge_trails(found.measured, None, 0.0);
        clock.stage("measure");

        Ok(findings.into_report(self.device_name(), clock.stages, clock.begin))
    }

    /// Takes the frame in, measures its sky and takes it off; a flag says why where there is none.
    fn measure_sky(
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
    fn stars_may_trail(&self) -> bool {
        self.config.tracking != Tracking::Sidereal
    }

    /// The compact sources, by a PSF whose width may be known.
    fn survey(
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
    fn weigh(&self, backend: &mut dyn Backend, sky: BackgroundMap, field: &StarField) -> Result<Weighed> {
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
    fn search(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        weighed: Weighed,
        field: &StarField,
        look: Look,
    ) -> Result<Found> {
        let mut search = self.begin_search(backend, frame, weighed, field, look)?;
        let trails = search.find_trails()?;
        let longest_px = search.segments.longest_px();
        let Search { sky, thresholds, chains, uneven, is_complete, .. } = search;
        let measured = last_fits::measure_trails(
            backend,
            frame,
            field,
            &chains,
            self.config.tracking,
            trails,
            last_fits::Among::All,
        )?;
        Ok(Found { measured, is_complete, sky, thresholds, chains, longest_px, uneven })
    }

    /// The same from the frame as it was taken in, its sky known, with a PSF width that may be given.
    fn search_anew(
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
    fn begin_search<'a>(
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

    fn segment_set(&self, backend: &dyn Backend, width: usize, height: usize, psf_sigma_px: f64) -> Arc<SegmentSet> {
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

    fn empty_report(&self, frame: &Frame<'_>, flag: FrameFlag, clock: Clock) -> Report {
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

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("device", &self.device_name()).field("config", &self.config).finish()
    }
}

/// How often the PSF's width is taken from trails.
const MOST_PSF_SEARCHES: usize = 4;

/// How often jumps between lines are looked for.
const MOST_TURNS: usize = 4;

/// With fewer masked pixels than this the search takes them for zeros, at the cost of a part of its S/N that the
/// refinement makes good; with more the transform of the weights, which takes four times as long, is worth it.
const LEAST_MASKED: f64 = 0.2;

/// Unresolved star trails raise the thresholds by this factor at most: where long ones cover the frame their scatter
/// says how much light there is, not how often it makes a line of another kind.
const MOST_SCATTER: f64 = 1.2;

/// Takes the frame in again, and the known sky off it.
fn normalise_anew(backend: &mut dyn Backend, frame: &Frame<'_>, sky: &BackgroundMap, lines: &Lines) -> Result<()> {
    backend.ingest(frame)?;
    backend.normalise(sky)?;
    if lines.is_none() { Ok(()) } else { backend.take_off_lines(lines) }
}

/// A frame whose sources have been weighed out.
struct Weighed {
    sky: BackgroundMap,
    /// Of the filtered image, where that is known: nothing was weighed out since, and the PSF is the same.
    scatter: Option<Scatter>,
}

/// What a search is for.
#[derive(Debug, Clone, PartialEq)]
enum Look {
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
    fn share(&self) -> f64 {
        if matches!(self, Self::AmongTrails(..)) { 0.5 } else { 1.0 }
    }
}

/// What the search of one frame brings back.
struct Found {
    measured: Vec<last_fits::Measured>,
    /// These are not only the bright ones that seem to tell that the stars are trails.
    is_complete: bool,
    /// As last measured, without the trails.
    sky: BackgroundMap,
    thresholds: Thresholds,
    chains: ChainPrior,
    longest_px: f64,
    uneven: UnevenSky,
}

impl Found {
    /// Those that the sky does not explain.
    fn on_even_sky(&self) -> Vec<last_fits::Measured> {
        let is_explained =
            |m: &last_fits::Measured| self.uneven.explains(&m.detection.segment, m.detection.snr, m.sigma_eff_px);
        self.measured.iter().filter(|m| !is_explained(m)).cloned().collect()
    }
}

/// Wall time, stage by stage.
struct Clock {
    begin: Instant,
    last: Instant,
    stages: Vec<(&'static str, f64)>,
}

impl Clock {
    fn start() -> Self {
        let now = Instant::now();
        Self { begin: now, last: now, stages: Vec::new() }
    }

    fn stage(&mut self, name: &'static str) {
        self.stages.push((name, self.last.elapsed().as_secs_f64() * 1e3));
        self.last = Instant::now();
    }
}

/// What the mutexes guard is replaced as a whole: a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
