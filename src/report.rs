//! What comes out of one frame: its detections, what was not believed and why, and what is known of the frame.

use crate::detection::Detection;
use crate::frame::Times;
use crate::geometry::Segment;

/// Why a candidate is not reported as a detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// Most of its light sits in one place: what is left of a star, not a line.
    StarResidual,
    /// Lies along a brighter trail: what is left of it where its brightness varies.
    TrailResidual,
    /// Narrower than the PSF: a particle hit the detector.
    CosmicRay,
    /// A single pixel, or nearly.
    HotPixel,
    /// Along one column, narrower than the PSF.
    HotColumn,
    /// Along one row, narrower than the PSF.
    HotRow,
    /// Along the column of a saturated star.
    BleedColumn,
    /// Points at a bright star: a diffraction spike or a ghost of its optics.
    DiffractionSpike,
    /// Much wider than the PSF, or explained as well by a disk, or crossed by lines of no better fit in other directions: a
    /// galaxy, a nebula or an edge of stray light.
    Extended,
    /// Follows the border of the usable area.
    FrameEdge,
    /// Lies where the sky is not what the background map says (an edge of stray light or of a shadow, a nebula), and is not
    /// much brighter than that is off; or runs along several other lines at small angles, as along such an edge.
    UnevenSky,
    /// Not significant against what lies beside it, or what its own model leaves of it: no trail describes this light.
    PoorFit,
}

impl RejectReason {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StarResidual => "star_residual",
            Self::TrailResidual => "trail_residual",
            Self::CosmicRay => "cosmic_ray",
            Self::HotPixel => "hot_pixel",
            Self::HotColumn => "hot_column",
            Self::HotRow => "hot_row",
            Self::BleedColumn => "bleed_column",
            Self::DiffractionSpike => "diffraction_spike",
            Self::Extended => "extended",
            Self::FrameEdge => "frame_edge",
            Self::UnevenSky => "uneven_sky",
            Self::PoorFit => "poor_fit",
        }
    }
}

/// A candidate above the threshold that was not believed.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejected {
    /// Where it lies.
    pub segment: Segment,
    /// Matched-filter S/N.
    pub snr: f64,
    /// Why it was not believed.
    pub reason: RejectReason,
}

/// How the telescope moved, as decided for one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TrackingMode {
    /// Stars are points.
    Sidereal,
    /// Stars are streaks of one common length and angle.
    Rate {
        /// Length of the star trails, px.
        star_length_px: f64,
        /// Angle of the star trails, rad, in [0, π).
        star_angle_rad: f64,
        /// Standard error of the length, px; 0 when it was given and not measured.
        star_length_err_px: f64,
        /// Standard error of the angle, rad; 0 when it was given and not measured.
        star_angle_err_rad: f64,
        /// Trails they were measured on; 0 when the vector was given and too few stars could be measured.
        n_stars: usize,
    },
}

impl TrackingMode {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sidereal => "sidereal",
            Self::Rate { .. } => "rate",
        }
    }
}

/// Where the PSF width came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PsfSource {
    /// Given in the configuration.
    Given,
    /// Measured on the frame's stars.
    Stars {
        /// How many stars were used.
        count: usize,
    },
    /// Measured on bright trails, across the track: there were too few stars.
    Trails {
        /// How many trails were found.
        count: usize,
    },
    /// Too few stars and trails to measure it: 1.5 px.
    Assumed,
}

impl PsfSource {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Stars { .. } => "stars",
            Self::Trails { .. } => "trails",
            Self::Assumed => "assumed",
        }
    }
}

/// What is worth knowing about a whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameFlag {
    /// No pixel can be used: all are masked, saturated or missing.
    NoUsablePixels,
    /// The usable pixels are all equal: there is no noise to measure a signal against.
    NoNoise,
    /// Both sides are shorter than 8 px, the shortest streak searched for.
    TooSmall,
    /// Too few stars to measure the PSF width: 1.5 px was assumed.
    PsfAssumed,
    /// The stars' common vector was given, and too few stars have it to measure it: they may have another.
    StarVectorUnseen,
    /// Areas of one constant value, 12 px wide or more, hold no data: they were left out, with 3 px around them.
    EmptyAreas,
}

impl FrameFlag {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoUsablePixels => "no_usable_pixels",
            Self::NoNoise => "no_noise",
            Self::TooSmall => "too_small",
            Self::PsfAssumed => "psf_assumed",
            Self::StarVectorUnseen => "star_vector_unseen",
            Self::EmptyAreas => "empty_areas",
        }
    }
}

/// Everything found in one frame.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Pixels along a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// The device that ran: an adapter's name, or `"cpu"`.
    pub device: String,
    /// How the telescope moved.
    pub tracking: TrackingMode,
    /// Gaussian PSF width used by the search, px.
    pub psf_sigma_px: f64,
    /// Where that width came from.
    pub psf_source: PsfSource,
    /// When the shutter was open, as the frame says.
    pub times: Option<Times>,
    /// Exposure time, s, as the frame says.
    pub exposure_secs: Option<f64>,
    /// The lowest S/N a streak of any length needed; infinite where nothing could be searched.
    pub threshold_snr: f64,
    /// The S/N a point needed where the stars are trails; none where points are stars.
    pub points_threshold_snr: Option<f64>,
    /// Detections by descending S/N, then by position.
    pub detections: Vec<Detection>,
    /// Candidates above the threshold that were not believed, in the same order.
    pub rejected: Vec<Rejected>,
    /// What is worth knowing about the frame.
    pub flags: Vec<FrameFlag>,
    /// Wall time of each stage, ms, in order.
    pub stages_ms: Vec<(&'static str, f64)>,
    /// Time of each operation on the pixels, ms, summed over its calls: what the stages ask of the CPU or the GPU. Their
    /// sum is less than `total_ms` by what is computed between them.
    pub operations_ms: Vec<(&'static str, f64)>,
    /// Time of each kernel on the GPU, ms, by the device's own clock, summed over its calls; empty on the CPU, and on
    /// devices without timestamps, and short of some where there were thousands of calls. The wall times of the
    /// operations hold the way there and back as well.
    pub kernels_ms: Vec<(&'static str, f64)>,
    /// Wall time from the raw pixels to the report, ms.
    pub total_ms: f64,
}
