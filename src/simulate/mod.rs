//! Simulated frames with exact truth, for tests, evaluation and sample data.
//!
//! A scene is light (sky, stars, moving objects) on a sensor (photon noise, hot pixels, cosmic rays, overflow of full
//! wells, read noise, 16 bits). Every source is integrated over time and pixels, and every position in the
//! [`Truth`] is where the source really was. Nothing here shares code with the measurement it is used to judge.
//!
//! Each ingredient draws from a random generator of its own: another number of stars leaves the streaks and the read
//! noise as they were, and one seed gives one frame, whatever the number of threads.
//!
//! ```
//! use skystreak::{Pixels, Segment, simulate::{Brightness, SceneConfig, StreakSpec, simulate}};
//!
//! let track = Segment::from_coordinates(60.0, 90.0, 140.0, 60.0);
//! let config = SceneConfig {
//!     width: 192,
//!     height: 160,
//!     streaks: vec![StreakSpec { segment: track, brightness: Brightness::Snr(30.0) }],
//!     ..SceneConfig::default()
//! };
//! let scene = simulate(&config)?;
//! assert!(matches!(scene.frame.pixels(), Pixels::U16(_)));
//! let streak = &scene.truth.streaks[0];
//! assert_eq!(streak.segment(), track);
//! assert!((streak.snr - 30.0).abs() < 1e-9);
//! assert_eq!(scene, simulate(&config)?);
//! # Ok::<(), skystreak::Error>(())
//! ```
//!
//! For statistics that need many blank frames, [`gaussian_frame`] and [`add_streak`] are cheaper; [`cramer_rao`] says
//! how well a streak can be measured at best.

mod bounds;
mod light;
mod noise;
mod place;
mod scene;
mod sensor;
mod truth;

pub use bounds::{Bounds, Unknowns, cramer_rao, cramer_rao_with};
pub use light::{Stamp, unit_stamp};
pub use noise::{add_streak, gaussian_frame};
pub use scene::{Brightness, RandomStreaks, SceneConfig, StarSpec, StarTrail, StreakSpec};
pub use truth::{SourceTruth, Truth};

use noise::generator;
use sensor::Sky;

use crate::{Error, Frame, Result, Role, Segment, Times};

/// A simulated frame and what it contains.
#[derive(Debug, Clone, PartialEq)]
pub struct Scene {
    /// The frame, 16-bit pixels, as a camera would give it.
    pub frame: Frame<'static>,
    /// What it contains.
    pub truth: Truth,
}

// Streams of random numbers, one for each ingredient.
const STARS: u32 = 1;
const STREAKS: u32 = 2;
const HOT_PIXELS: u32 = 3;
const COSMIC_RAYS: u32 = 4;
const PHOTONS: u32 = 5;
const READ_NOISE: u32 = 6;

/// Simulates one frame.
///
/// # Errors
///
/// [`Error::Config`] when a value is out of its range, a given streak misses the frame, or there is no room for the
/// random ones.
pub fn simulate(config: &SceneConfig) -> Result<Scene> {
    config.validate()?;
    let (width, height, seed) = (config.width, config.height, config.seed);
    let mut exposure = Exposure::of_sky(config);

    let stars = place::place_stars(config, &mut generator(seed, STARS, 0));
    let mut stars: Vec<_> = stars
        .into_iter()
        .filter_map(|(track, flux_e)| exposure.add_source(&track, Role::Star, |_| flux_e))
        .filter(|star| star.snr >= truth::LISTED_STAR_SNR)
        .collect();
    number(&mut stars);

    let mut streaks = Vec::new();
    for StreakSpec { segment, brightness } in place::place_streaks(config, &mut generator(seed, STREAKS, 0))? {
        let (Brightness::Snr(value) | Brightness::FluxE(value)) = brightness;
        let flux_e = |unit_snr: f64| match brightness {
            Brightness::Snr(snr) => snr / unit_snr,
            Brightness::FluxE(flux_e) => flux_e,
        };
        let source = exposure.add_source(&segment, Role::Target, flux_e);
        streaks.push(source.filter(|_| value > 0.0 && value.is_finite()).ok_or_else(|| {
            let (a, b) = (segment.start, segment.end);
            Error::Config(format!(
                "a streak from ({}, {}) to ({}, {}) with {brightness:?}: outside of {width} x {height} pixels, or no light",
                a.x, a.y, b.x, b.y
            ))
        })?);
    }
    number(&mut streaks);

    let mut electrons = exposure.electrons;
    let hot_pixels = sensor::add_hot_pixels(&mut electrons, config, &mut generator(seed, HOT_PIXELS, 0));
    sensor::count_photons(&mut electrons, width, seed, PHOTONS);
    let cosmic_rays = sensor::add_cosmic_rays(&mut electrons, config, &mut generator(seed, COSMIC_RAYS, 0));
    let bleeding_columns = sensor::bleed(&mut electrons, width, config.full_well_e);
    let pixels = sensor::digitise(&electrons, config, READ_NOISE);

    let frame = Frame::new(pixels, width, height)?
        .with_gain(config.gain_e_per_adu)?
        .with_read_noise(config.read_noise_e)
        .with_saturation(config.saturation_adu())
        .with_exposure(config.exposure_secs)
        .with_times(Times {
            start_utc: Some(config.start_utc.clone()),
            middle_utc: None,
            end_utc: None,
            rule: "start of the simulated exposure".into(),
        });
    let truth = Truth {
        width,
        height,
        seed,
        psf_sigma_px: config.psf_sigma_px,
        noise_e: config.noise_e(),
        noise_adu: config.noise_e() / config.gain_e_per_adu,
        gain_e_per_adu: config.gain_e_per_adu,
        star_trail: config.star_trail,
        streaks,
        stars,
        hot_pixels,
        cosmic_rays,
        bleeding_columns,
    };
    Ok(Scene { frame, truth })
}

/// The electrons expected in every pixel, while sources are added.
struct Exposure<'a> {
    config: &'a SceneConfig,
    sky: Sky,
    electrons: Vec<f64>,
}

impl<'a> Exposure<'a> {
    fn of_sky(config: &'a SceneConfig) -> Self {
        let sky = Sky::new(config);
        let rows = 0..config.height;
        let electrons = rows.flat_map(|y| (0..config.width).map(move |x| (x, y)));
        let electrons = electrons.map(|(x, y)| sky.electrons(x, y)).collect();
        Self { config, sky, electrons }
    }

    /// Adds a source whose flux may depend on its S/N at unit flux; none when its track misses the frame.
    fn add_source(&mut self, track: &Segment, role: Role, flux_e: impl Fn(f64) -> f64) -> Option<SourceTruth> {
        let config = self.config;
        let stamp = unit_stamp(track, config.psf_sigma_px, config.width, config.height);
        let read_variance = config.read_noise_e * config.read_noise_e;
        let unit_snr = stamp.unit_snr(|x, y| self.sky.electrons(x, y) + read_variance);
        let flux_e = flux_e(unit_snr);
        for (x, y, share) in stamp.pixels() {
            self.electrons[y * config.width + x] += flux_e * share;
        }
        SourceTruth::new(config, role, track, flux_e, &stamp, unit_snr)
    }
}

fn number(sources: &mut [SourceTruth]) {
    sources.iter_mut().enumerate().for_each(|(id, source)| source.id = id);
}
