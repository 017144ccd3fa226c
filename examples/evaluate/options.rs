//! Options that all measurements share, and the loop over frames.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::ProgressBar;
use skystreak::{Detector, DetectorConfig, Device};

use crate::AnyResult;
use crate::scenes::{Conditions, Photons};

/// Nothing is as bright.
pub(crate) const NO_SOURCE_SNR: f64 = 1e9;

/// The frames, and who works on them.
#[derive(Args, Debug, Clone)]
pub(crate) struct Common {
    /// Number of frames.
    #[arg(long, default_value = "100", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) frames: usize,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Side of the square frames, px.
    #[arg(long, default_value_t = 512)]
    pub(crate) size: usize,
    /// Gaussian width of the PSF, px; the detector is told.
    #[arg(long, default_value_t = 1.5)]
    pub(crate) sigma: f64,

    /// The detector is told a PSF width this much too large, as a share of it; less than 0 is too small.
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(crate) sigma_off: f64,
    /// cpu, gpu, auto, or an adapter by (part of) its name.
    #[arg(long, default_value = "cpu", value_parser = parse_device)]
    device: Device,
    /// Frames worked on at once. Default: the number of cores.
    #[arg(long)]
    threads: Option<usize>,
    /// Weigh no compact source out, as a search for streaks in empty sky would.
    #[arg(long)]
    keep_sources: bool,
    /// Change of the sky across the frame, in units of the noise.
    #[arg(long, default_value_t = 10.0)]
    gradient: f64,
    /// Noise at the right border over the noise at the left one.
    #[arg(long, default_value_t = 1.0)]
    noise_gradient: f64,
    /// Share of the pixels under round masks.
    #[arg(long, default_value_t = 0.0)]
    masked: f64,
    /// Number of masked columns.
    #[arg(long, default_value_t = 0)]
    bad_columns: usize,
    /// Width of a band of masked columns.
    #[arg(long, default_value_t = 0)]
    column_band: usize,
    /// By how much the width of each streak differs from the frame's PSF: rms of the logarithm of their ratio.
    #[arg(long, default_value_t = 0.0)]
    width_spread: f64,
    /// Count photons, with this gain in electrons per ADU; else the noise is white.
    #[arg(long, value_name = "E_PER_ADU")]
    gain: Option<f64>,
    /// Sky where photons are counted, electrons per pixel.
    #[arg(long, default_value_t = 400.0)]
    sky_e: f64,
    /// Read noise where photons are counted, electrons.
    #[arg(long, default_value_t = 8.0)]
    read_noise_e: f64,
}

impl Common {
    /// What the frames look like.
    pub(crate) fn conditions(&self) -> AnyResult<Conditions> {
        let photons = self.gain.map(|gain_e_per_adu| Photons {
            gain_e_per_adu,
            sky_e: self.sky_e,
            read_noise_e: self.read_noise_e,
        });
        if photons.is_some() && (self.noise_gradient != 1.0 || self.width_spread != 0.0) {
            return Err("--noise-gradient and --width-spread go with white noise, not with --gain".into());
        }
        if self.sigma.is_nan() || self.sigma <= 0.0 {
            return Err("--sigma above 0, please".into());
        }
        if [self.gain, Some(self.sky_e)].iter().flatten().any(|v| v.is_nan() || *v <= 0.0) || self.read_noise_e < 0.0 {
            return Err("--gain and --sky-e above 0, --read-noise-e not below, please".into());
        }
        if !(0.0..0.9).contains(&self.masked) || self.noise_gradient <= 0.0 || self.size < 16 {
            return Err("--masked below 0.9, --noise-gradient above 0 and --size of 16 and more, please".into());
        }
        if self.column_band.max(self.bad_columns) >= self.size || !(0.0..0.3).contains(&self.width_spread) {
            return Err(
                "--column-band and --bad-columns narrower than the frame and --width-spread below 0.3, please".into()
            );
        }
        Ok(Conditions {
            gradient: self.gradient,
            noise_ratio: self.noise_gradient,
            masked: self.masked,
            bad_columns: self.bad_columns,
            column_band: self.column_band,
            width_spread: self.width_spread,
            photons,
            ..Conditions::white(self.size, self.sigma)
        })
    }

    /// The detector's settings: PSF width given, all else as it comes.
    pub(crate) fn config(&self, false_alarms_per_frame: f64) -> DetectorConfig {
        let mut config = DetectorConfig {
            device: self.device.clone(),
            psf_sigma_px: Some((1.0 + self.sigma_off) * self.sigma),
            false_alarms_per_frame,
            ..DetectorConfig::default()
        };
        if self.keep_sources {
            config.weigh.source_snr = NO_SOURCE_SNR;
        }
        config
    }

    /// A detector with these settings.
    pub(crate) fn detector(&self, false_alarms_per_frame: f64) -> AnyResult<Detector> {
        Ok(Detector::new(self.config(false_alarms_per_frame))?)
    }

    /// Says in one line what was simulated.
    pub(crate) fn describe(&self) {
        let Self { frames, seed, size, sigma, sigma_off, .. } = self;
        let plural = if *frames == 1 { "" } else { "s" };
        println!("{frames} frame{plural} of {size} × {size} px, PSF sigma {sigma} px, seed {seed}.");
        if *sigma_off != 0.0 {
            println!("The detector was told a PSF sigma of {:.3} px.", (1.0 + sigma_off) * sigma);
        }
        println!();
    }

    /// Works on every frame, several at once, and gives the results in their order.
    ///
    /// Threads of their own: the CPU backend keeps the pool of the library busy.
    pub(crate) fn over_frames<T: Send>(&self, work: impl Fn(usize) -> AnyResult<T> + Sync) -> AnyResult<Vec<T>> {
        let terminal = std::io::stderr().is_terminal();
        let progress = if terminal { ProgressBar::new(self.frames as u64) } else { ProgressBar::hidden() };
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        let n_threads = self.threads.unwrap_or_else(cores).clamp(1, self.frames);
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut results = Vec::new();
            loop {
                let frame = next.fetch_add(1, Ordering::Relaxed);
                if frame >= self.frames {
                    return Ok(results);
                }
                let result = work(frame).inspect_err(|_| next.store(self.frames, Ordering::Relaxed))?;
                results.push((frame, result));
                progress.inc(1);
            }
        };
        let shares: Vec<AnyResult<Vec<(usize, T)>>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..n_threads).map(|_| scope.spawn(worker)).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join().expect("panics are bugs");
            workers.into_iter().map(join).collect()
        });
        progress.finish_and_clear();
        let mut results: Vec<(usize, T)> =
            shares.into_iter().collect::<AnyResult<Vec<_>>>()?.into_iter().flatten().collect();
        results.sort_by_key(|r| r.0);
        Ok(results.into_iter().map(|r| r.1).collect())
    }
}

fn parse_device(text: &str) -> Result<Device, String> {
    Ok(match text.to_lowercase().as_str() {
        "auto" => Device::Auto,
        "cpu" => Device::Cpu,
        "gpu" => Device::Gpu,
        _ => Device::Named(text.to_owned()),
    })
}
