//! A trail that is believed in.

use crate::pipeline::judge::KnownTrail;
use crate::pipeline::measure::{Trail, TrailFit};
use crate::pipeline::tracking::Seen;

/// A trail that is believed in; its model has been taken out of the residual image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Believed {
    pub(crate) fit: TrailFit,
    pub(crate) origin: Origin,
    /// A star's trail that lies in the wings of a brighter one.
    pub(crate) is_part_of_wings: bool,
    /// A star that is where its common vector fits: it is faint, or a target draws its own ends along.
    pub(crate) keeps_vector: bool,
    /// S/N² by which it explains more than trails of stars in its place, prices included and in the frame's own noise;
    /// none where these were not tried.
    pub(crate) gain_over_star_trails: Option<f64>,
}

/// How a trail came to be believed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Found,
    /// Made of pieces with gaps between them.
    Joined,
    /// One of the stars that make a blend.
    Parted,
    /// Found as a star, with the common vector.
    Star,
}

impl Believed {
    pub(crate) fn new(fit: TrailFit, origin: Origin) -> Self {
        Self { fit, origin, is_part_of_wings: false, keeps_vector: false, gain_over_star_trails: None }
    }

    pub(crate) fn trail(&self) -> Trail {
        self.fit.trail
    }

    pub(crate) fn as_known(&self) -> KnownTrail {
        let Trail { segment, sigma_eff_px, .. } = self.fit.trail;
        KnownTrail { segment, sigma_eff_px, snr: self.fit.snr }
    }

    /// Before its last fit: nothing is known of its errors.
    pub(crate) fn as_seen(&self) -> Seen {
        Seen { segment: self.fit.trail.segment, snr: self.fit.snr, length_68_px: 0.0, whole: true, wide: false }
    }
}
