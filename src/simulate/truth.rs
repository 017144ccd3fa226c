//! What a simulated frame really contains.

use serde::{Deserialize, Serialize};

use super::{SceneConfig, Stamp, StarTrail};
use crate::{Role, Segment};

/// Sources below this S/N are left out of the lists of stars: nobody could find them.
pub(super) const LISTED_STAR_SNR: f64 = 3.0;

/// What a simulated frame really contains. Coordinates are 0-based, pixel centres at whole numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Pixels along a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// The seed of the scene.
    pub seed: u64,
    /// Width of the Gaussian PSF, px.
    pub psf_sigma_px: f64,
    /// Background rms per pixel at the centre of the frame, electrons.
    pub noise_e: f64,
    /// The same in ADU.
    pub noise_adu: f64,
    /// Electrons per ADU.
    pub gain_e_per_adu: f64,
    /// How stars moved; none when they are points.
    pub star_trail: Option<StarTrail>,
    /// The targets, streaks and points, in the order of the scene: given ones first.
    pub streaks: Vec<SourceTruth>,
    /// Stars of S/N 3 or more whose track touches the frame, with the ends of their trails.
    pub stars: Vec<SourceTruth>,
    /// Hot pixels as [column, row].
    pub hot_pixels: Vec<[usize; 2]>,
    /// Cosmic rays as [x1, y1, x2, y2].
    pub cosmic_rays: Vec<[f64; 4]>,
    /// Columns with charge above the full well.
    pub bleeding_columns: Vec<usize>,
}

/// One source: a streak, or a point where both ends are the same place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceTruth {
    /// Its place in the list.
    pub id: usize,
    /// Target or star.
    #[serde(with = "RoleName")]
    pub role: Role,
    /// Midpoint of the part inside the frame, px.
    pub x: f64,
    /// Midpoint of the part inside the frame, px.
    pub y: f64,
    /// The end of smaller x (then y) of the part inside the frame, px.
    pub x1: f64,
    /// The end of smaller x (then y) of the part inside the frame, px.
    pub y1: f64,
    /// The other end of that part, px.
    pub x2: f64,
    /// The other end of that part, px.
    pub y2: f64,
    /// Length of that part, px.
    pub length_px: f64,
    /// Angle of the track, rad from +x towards +y, in [0, π).
    pub angle_rad: f64,
    /// Light inside the frame, electrons, before any pixel saturates.
    pub flux_e: f64,
    /// Matched-filter S/N: `√Σ flux²t²/var` with `var = sky + read noise²`.
    pub snr: f64,
    /// Background rms per pixel under the source, electrons: `flux · √Σt² / snr`.
    pub noise_e: f64,
    /// The track goes on beyond (x1, y1), out of the frame.
    pub end1_off_frame: bool,
    /// The track goes on beyond (x2, y2), out of the frame.
    pub end2_off_frame: bool,
}

impl SourceTruth {
    /// The track inside the frame.
    #[must_use]
    pub fn segment(&self) -> Segment {
        Segment::from_coordinates(self.x1, self.y1, self.x2, self.y2)
    }

    /// The record of a source; none when its track misses the frame.
    pub(super) fn new(
        config: &SceneConfig,
        role: Role,
        segment: &Segment,
        flux_e: f64,
        stamp: &Stamp,
        unit_snr: f64,
    ) -> Option<Self> {
        let whole = segment.ordered();
        let inside = whole.clipped_to(config.width, config.height)?;
        let midpoint = inside.midpoint();
        Some(Self {
            id: 0,
            role,
            x: midpoint.x,
            y: midpoint.y,
            x1: inside.start.x,
            y1: inside.start.y,
            x2: inside.end.x,
            y2: inside.end.y,
            length_px: inside.length_px(),
            angle_rad: whole.angle_rad(),
            flux_e: flux_e * stamp.total(),
            snr: flux_e * unit_snr,
            noise_e: stamp.norm() / unit_snr,
            end1_off_frame: inside.start.distance(whole.start) > 1e-9,
            end2_off_frame: inside.end.distance(whole.end) > 1e-9,
        })
    }
}

/// The names of [`Role`] in files.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Role", rename_all = "snake_case")]
enum RoleName {
    Target,
    Star,
}
