//! The detector: a script of the stages.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::Result;
use crate::backend::{Backend, TileSource};
use crate::detection::{FrameFlag, PsfSource, Report, TrackingMode};
use crate::device::{Device, Engine};
use crate::error::require;
use crate::frame::Frame;
use crate::pipeline::background::{BackgroundConfig, BackgroundMap, Mesh};
use crate::pipeline::judge::JudgeConfig;
use crate::pipeline::merge::Search;
use crate::pipeline::psf::{PsfKernel, effective_sigma};
use crate::pipeline::report::{self, Findings};
use crate::pipeline::search::SearchConfig;
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::stars::{self, StarField};
use crate::pipeline::threshold::{self, Thresholds};
use crate::pipeline::tracking::Tracking;
use crate::pipeline::weigh::WeighConfig;

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
    idle: Mutex<Vec<Box<dyn Backend>>>,
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
        let idle = lock(&self.idle).pop();
        let mut backend = match idle {
            Some(backend) => backend,
            None => self.engine.backend()?,
        };
        // A backend whose stage failed is dropped, not reused.
        let report = self.run(&mut *backend, frame)?;
        lock(&self.idle).push(backend);
        Ok(report)
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
        let mut backend = self.engine.backend()?;
        backend.prepare(frame.width(), frame.height())?;
        backend.ingest(frame)?;
        let mesh = Mesh::new(frame.width(), frame.height(), self.config.background.mesh_px);
        let tiles = backend.tile_statistics(mesh, TileSource::Values)?;
        Ok(BackgroundMap::from_tiles(mesh, &tiles).map(|map| {
            let (level, noise) = map.evaluate();
            Sky { level, noise }
        }))
    }

    fn run(&self, backend: &mut dyn Backend, frame: &Frame<'_>) -> Result<Report> {
        let mut clock = Clock::start();
        let (width, height) = (frame.width(), frame.height());
        let config = &self.config;
        backend.prepare(width, height)?;

        backend.ingest(frame)?;
        clock.stage("ingest");

        let mesh = Mesh::new(width, height, config.background.mesh_px);
        let tiles = backend.tile_statistics(mesh, TileSource::Values)?;
        let Some(sky) = BackgroundMap::from_tiles(mesh, &tiles) else {
            let seen = tiles.iter().any(|t| t.n_usable > 0);
            let flag = if seen { FrameFlag::NoNoise } else { FrameFlag::NoUsablePixels };
            clock.stage("background");
            return Ok(self.empty_report(frame, flag, clock));
        };
        backend.normalise(&sky)?;
        clock.stage("background");

        let mut field = stars::survey(backend, mesh, config.psf_sigma_px, &config.weigh)?;
        let mut sky_left = self.weigh(backend, &sky, &field)?;
        clock.stage("weigh");

        let mut found = self.search(backend, frame, &sky, &field, sky_left.masked)?;
        if let Some(sigma) = stars::psf_from_trails(&field, &found.measured) {
            // No stars to measure the PSF on, but bright trails: search again with their width.
            backend.ingest(frame)?;
            backend.normalise(&sky)?;
            field = stars::survey(backend, mesh, Some(sigma), &config.weigh)?;
            field.psf_source = PsfSource::Trails { count: found.measured.len() };
            sky_left = self.weigh(backend, &sky, &field)?;
            found = self.search(backend, frame, &sky, &field, sky_left.masked)?;
        }
        clock.stage("search");

        let mut findings = Findings::new(frame, &field, config, found.thresholds, found.longest_px);
        findings.judge_trails(found.measured);
        if let TrackingMode::Rate { .. } = findings.tracking {
            // Points among trailed stars: with all weights back, and the trails taken out.
            backend.ingest(frame)?;
            backend.normalise(&sky)?;
            if let Some(map) = &sky_left.correction {
                backend.normalise(map)?;
            }
            findings.add_points(backend)?;
        }
        clock.stage("measure");

        Ok(findings.into_report(self.device_name(), clock.stages, clock.begin))
    }

    /// Weighs out the sources of the field, and takes the mean of what is left off the residual.
    fn weigh(&self, backend: &mut dyn Backend, sky: &BackgroundMap, field: &StarField) -> Result<SkyLeft> {
        backend.weigh_out(&field.footprints)?;
        backend.filter(&PsfKernel::new(field.psf_sigma_px), self.config.search.clip_sigmas as f32, false)?;
        let tiles = backend.tile_statistics(sky.mesh, TileSource::Filtered)?;
        let usable: u64 = tiles.iter().map(|t| u64::from(t.n_usable)).sum();
        let masked = 1.0 - usable as f64 / (sky.mesh.width * sky.mesh.height) as f64;
        let plain = field.footprints.is_empty() && field.noise_excess == 1.0;
        let correction = if plain { None } else { sky.correction(&tiles) };
        if let Some(map) = &correction {
            backend.normalise(map)?;
        }
        Ok(SkyLeft { correction, masked })
    }

    /// Finds and measures the trails in what has not been weighed out.
    fn search(
        &self,
        backend: &mut dyn Backend,
        frame: &Frame<'_>,
        sky: &BackgroundMap,
        field: &StarField,
        masked: f64,
    ) -> Result<Found> {
        let (width, height) = (frame.width(), frame.height());
        let segments = self.segment_set(&*backend, width, height, field.psf_sigma_px);
        backend.filter(&segments.kernel, self.config.search.clip_sigmas as f32, false)?;
        let excess = threshold::noise_excess(backend, sky.mesh, &segments.kernel)?;
        let thresholds = Thresholds::new(
            self.config.false_alarms_per_frame,
            width * height,
            field.psf_sigma_px,
            segments.longest_px(),
            excess,
        );
        let mut search = Search {
            backend,
            sky,
            segments: &segments,
            thresholds: &thresholds,
            config: &self.config.search,
            weighted: masked > LEAST_MASKED,
            photon_variance: frame.gain_e_per_adu().map_or(0.0, |g| 1.0 / g),
        };
        let trails = if segments.tasks.is_empty() { Vec::new() } else { search.find_trails()? };
        let measured = report::measure_trails(backend, frame, field, trails)?;
        Ok(Found { measured, thresholds, longest_px: segments.longest_px() })
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
            threshold_snr: f64::INFINITY,
            detections: Vec::new(),
            rejected: Vec::new(),
            flags: vec![flag],
            total_ms: clock.begin.elapsed().as_secs_f64() * 1e3,
            stages_ms: clock.stages,
        }
    }
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("device", &self.device_name()).field("config", &self.config).finish()
    }
}

/// With fewer masked pixels than this the search takes them for zeros, at the cost of a part of its S/N that the
/// refinement makes good; with more the transform of the weights, which takes twice the time, is worth it.
const LEAST_MASKED: f64 = 0.1;

/// The sky after the sources are weighed out.
struct SkyLeft {
    /// What was taken off the residual; none where the sky is plain noise.
    correction: Option<BackgroundMap>,
    /// Fraction of the pixels with weight zero.
    masked: f64,
}

/// What the search of one frame brings back.
struct Found {
    measured: Vec<report::Measured>,
    thresholds: Thresholds,
    longest_px: f64,
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
