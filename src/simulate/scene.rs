//! What a scene is made of.

use serde::{Deserialize, Serialize};

use crate::{Error, MAX_SIDE_PX, Result, Segment};

/// A scene to simulate: sky, sensor, stars and moving objects.
///
/// Read from JSON, fields that are left away keep their default.
///
/// ```
/// use skystreak::simulate::SceneConfig;
///
/// let scene: SceneConfig = serde_json::from_str(
///     r#"{"width": 256, "streaks": [{"segment": [20, 30, 90, 60], "snr": 15}]}"#,
/// ).unwrap();
/// assert_eq!((scene.width, scene.height, scene.streaks.len()), (256, 1024, 1));
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SceneConfig {
    /// Pixels along a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// Everything random follows from it.
    pub seed: u64,
    /// Width of the circular Gaussian PSF, px.
    pub psf_sigma_px: f64,
    /// Sky at the centre of the frame, electrons per pixel.
    pub sky_e: f64,
    /// Change of the sky from one side of the frame to the other, as a fraction of the sky at the centre.
    pub gradient: f64,
    /// The sky grows in this direction, rad from +x towards +y.
    pub gradient_angle_rad: f64,
    /// Fraction of the sky lost in the corners, falling off with the square of the distance from the centre.
    pub vignetting: f64,
    /// Read noise, electrons rms.
    pub read_noise_e: f64,
    /// Electrons per ADU.
    pub gain_e_per_adu: f64,
    /// Level of a pixel without charge, ADU.
    pub bias_adu: f64,
    /// Charge a pixel holds, electrons; more flows along its column.
    pub full_well_e: f64,
    /// Exposure time, s. Written to the frame; fluxes are per exposure.
    pub exposure_secs: f64,
    /// Start of the exposure, UTC, ISO 8601. Written to the frame.
    pub start_utc: String,
    /// Mean number of random stars per million pixels.
    pub stars_per_mpix: f64,
    /// Growth of the number of stars, dex per magnitude.
    pub star_slope_dex_per_mag: f64,
    /// S/N of the faintest random stars, trailed as the scene says.
    pub star_min_snr: f64,
    /// Flux of the brightest random stars, electrons; brighter draws are cut to it.
    pub star_max_flux_e: f64,
    /// Stars at given places, besides the random ones.
    pub stars: Vec<StarSpec>,
    /// How stars move during the exposure; none when the telescope follows them.
    pub star_trail: Option<StarTrail>,
    /// Hot pixels per million pixels.
    pub hot_pixels_per_mpix: f64,
    /// Cosmic rays per million pixels.
    pub cosmic_rays_per_mpix: f64,
    /// Streaks and point targets at given places.
    pub streaks: Vec<StreakSpec>,
    /// Streaks and point targets at random places.
    pub random_streaks: Vec<RandomStreaks>,
}

impl Default for SceneConfig {
    /// A frame of a small survey telescope that follows the stars, without any streak.
    fn default() -> Self {
        Self {
            // Large enough for long streaks, small enough for a test.
            width: 1024,
            height: 1024,
            seed: 1,
            // FWHM 3.5 px: a telescope on the ground, well sampled.
            psf_sigma_px: 1.5,
            // Sky noise of 20 e-, more than twice the read noise: seconds under a dark sky.
            sky_e: 400.0,
            // Moonlight and a lens leave about this much.
            gradient: 0.15,
            gradient_angle_rad: 0.6,
            vignetting: 0.1,
            // A common CCD or sCMOS camera in its fast mode.
            read_noise_e: 8.0,
            // The noise is 14 ADU: quantisation adds nothing.
            gain_e_per_adu: 1.5,
            bias_adu: 1000.0,
            // Ends below the 16 bits of the converter, so that the well is what saturates.
            full_well_e: 80_000.0,
            exposure_secs: 5.0,
            start_utc: "2026-01-01T00:00:00".into(),
            // Middle galactic latitudes for such a telescope.
            stars_per_mpix: 1200.0,
            // Star counts there; a uniform universe would give 0.6.
            star_slope_dex_per_mag: 0.3,
            // Fainter ones are seen by no one.
            star_min_snr: 3.0,
            // Bleeds over some 60 pixels of its column.
            star_max_flux_e: 2e7,
            stars: Vec::new(),
            star_trail: None,
            // A cooled sensor in its first years.
            hot_pixels_per_mpix: 30.0,
            // A few seconds at sea level.
            cosmic_rays_per_mpix: 4.0,
            streaks: Vec::new(),
            random_streaks: Vec::new(),
        }
    }
}

impl SceneConfig {
    /// Level sky, read noise and nothing else: for statistics without nuisances.
    #[must_use]
    pub fn blank() -> Self {
        Self {
            gradient: 0.0,
            vignetting: 0.0,
            stars_per_mpix: 0.0,
            hot_pixels_per_mpix: 0.0,
            cosmic_rays_per_mpix: 0.0,
            ..Self::default()
        }
    }

    /// A telescope that follows a satellite: the stars trail over `length_px` at `angle_rad`.
    #[must_use]
    pub fn rate_tracked(length_px: f64, angle_rad: f64) -> Self {
        Self { star_trail: Some(StarTrail { length_px, angle_rad }), ..Self::default() }
    }

    /// Background rms at the centre of the frame, electrons.
    #[must_use]
    pub fn noise_e(&self) -> f64 {
        self.read_noise_e.hypot(self.sky_e.sqrt())
    }

    /// Where pixels are declared saturated, ADU: a little below the full well, whose read noise scatters both ways.
    #[must_use]
    pub fn saturation_adu(&self) -> f64 {
        (self.bias_adu + 0.95 * self.full_well_e / self.gain_e_per_adu).floor().min(f64::from(u16::MAX))
    }

    pub(super) fn validate(&self) -> Result<()> {
        let (min, max) = (f64::MIN_POSITIVE, f64::MAX);
        for (name, value, low, high) in [
            ("width", self.width as f64, 1.0, MAX_SIDE_PX as f64),
            ("height", self.height as f64, 1.0, MAX_SIDE_PX as f64),
            ("psf_sigma_px", self.psf_sigma_px, 0.1, 100.0),
            ("sky_e", self.sky_e, 0.0, max),
            ("gradient", self.gradient, -2.0, 2.0),
            ("gradient_angle_rad", self.gradient_angle_rad, -max, max),
            ("vignetting", self.vignetting, 0.0, 1.0),
            ("read_noise_e", self.read_noise_e, 0.0, max),
            ("gain_e_per_adu", self.gain_e_per_adu, min, max),
            ("bias_adu", self.bias_adu, 0.0, f64::from(u16::MAX)),
            ("full_well_e", self.full_well_e, min, max),
            ("exposure_secs", self.exposure_secs, 0.0, max),
            ("stars_per_mpix", self.stars_per_mpix, 0.0, 1e6),
            ("star_slope_dex_per_mag", self.star_slope_dex_per_mag, min, max),
            ("star_min_snr", self.star_min_snr, min, max),
            ("star_max_flux_e", self.star_max_flux_e, 0.0, max),
            ("hot_pixels_per_mpix", self.hot_pixels_per_mpix, 0.0, 1e6),
            ("cosmic_rays_per_mpix", self.cosmic_rays_per_mpix, 0.0, 1e6),
            ("background noise (e-)", self.noise_e(), min, max),
        ] {
            if !(low..=high).contains(&value) {
                return Err(Error::Config(format!("{name} is {value}: it must lie between {low} and {high}")));
            }
        }
        for streaks in &self.random_streaks {
            for (name, [from, to]) in
                [("snr", streaks.snr), ("length_px", streaks.length_px), ("angle_rad", streaks.angle_rad)]
            {
                if from > to || !from.is_finite() || !to.is_finite() {
                    return Err(Error::Config(format!("{name} of random streaks is from {from} to {to}")));
                }
            }
        }
        Ok(())
    }
}

/// A moving object (a point target where the segment has no length).
///
/// In JSON: `{"segment": [x1, y1, x2, y2], "snr": 20}` or `{"segment": [...], "flux_e": 4000}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StreakSpec {
    /// The track; it may leave the frame.
    #[serde(with = "ends")]
    pub segment: Segment,
    /// How bright it is.
    #[serde(flatten)]
    pub brightness: Brightness,
}

/// Brightness of a moving object.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Brightness {
    /// Matched-filter S/N of the part inside the frame.
    Snr(f64),
    /// Flux of the whole track, electrons.
    FluxE(f64),
}

/// A star at a given place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StarSpec {
    /// Along a row, px; the middle of its trail in a rate-tracked scene.
    pub x: f64,
    /// Along a column, px.
    pub y: f64,
    /// Flux, electrons.
    pub flux_e: f64,
}

/// The common motion of all stars during the exposure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StarTrail {
    /// Length of the trails, px.
    pub length_px: f64,
    /// Angle of the trails, rad from +x towards +y.
    pub angle_rad: f64,
}

/// Moving objects at random places, each value uniform in its range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomStreaks {
    /// How many.
    pub n: usize,
    /// Matched-filter S/N, from and to.
    pub snr: [f64; 2],
    /// Length, px, from and to; zeros make point targets.
    pub length_px: [f64; 2],
    /// Angle, rad, from and to.
    pub angle_rad: [f64; 2],
    /// Distance of the ends from the border of the frame, px.
    pub margin_px: f64,
    /// Smallest distance from every other streak of the scene, px.
    pub guard_px: f64,
}

impl Default for RandomStreaks {
    fn default() -> Self {
        Self {
            n: 4,
            // From invisible in single pixels to plain to the eye.
            snr: [8.0, 40.0],
            // Low orbits in a short exposure.
            length_px: [20.0, 200.0],
            angle_rad: [0.0, std::f64::consts::PI],
            // Both ends and their light are seen.
            margin_px: 12.0,
            // Apart even after a search that smooths over several pixels.
            guard_px: 25.0,
        }
    }
}

/// A segment as `[x1, y1, x2, y2]`.
mod ends {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::Segment;

    pub(super) fn serialize<S: Serializer>(segment: &Segment, serializer: S) -> Result<S::Ok, S::Error> {
        [segment.start.x, segment.start.y, segment.end.x, segment.end.y].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Segment, D::Error> {
        let [x1, y1, x2, y2] = <[f64; 4]>::deserialize(deserializer)?;
        Ok(Segment::from_coordinates(x1, y1, x2, y2))
    }
}
