//! The detector: how it is set, and what it can be asked.

mod rate;
mod stages;

use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::Backend;
use crate::backend::timed::Timed;
use crate::device::{Device, Engine};
use crate::error::{Error, Result, require};
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::BackgroundConfig;
use crate::pipeline::empty;
use crate::pipeline::judge::JudgeConfig;
use crate::pipeline::search::SearchConfig;
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::stars;
use crate::pipeline::tracking::Tracking;
use crate::pipeline::weigh::WeighConfig;
use crate::reference::Reference;
use crate::report::{PsfSource, Report};
use stages::{Clock, Look};

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
    /// [`FrameFlag`](crate::FrameFlag) that says why.
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

    /// Frames that are best computed at the same time, at most. One keeps two cores busy nearly all the time; a GPU has
    /// the way there and back to fill.
    pub(crate) fn frames_at_once(&self) -> usize {
        if self.engine.is_cpu() { (rayon::current_num_threads() / 2).max(1) } else { usize::MAX }
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
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("device", &self.device_name()).field("config", &self.config).finish()
    }
}

/// What the mutexes guard is replaced as a whole: a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
