//! What is found: detections with their errors.

use crate::geometry::{Point, Segment};

/// What a detection looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A trail with two ends.
    Streak,
    /// A point source: both ends are the same place.
    Point,
}

impl Kind {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Streak => "streak",
            Self::Point => "point",
        }
    }
}

/// What a detection is, as far as the frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It does not move with the stars.
    Target,
    /// It moves with the stars.
    Star,
}

impl Role {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Star => "star",
        }
    }
}

/// Unit of a flux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FluxUnit {
    /// Electrons: the frame's gain is known.
    Electron,
    /// Analogue-to-digital units, as in the frame.
    Adu,
}

impl FluxUnit {
    /// The name written to files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Electron => "electron",
            Self::Adu => "adu",
        }
    }
}

macro_rules! flags {
    ($($constant:ident = $bit:literal, $name:literal, $description:literal;)*) => {
        impl Flags {
            $(#[doc = $description] pub const $constant: Self = Self(1 << $bit);)*

            /// Every flag with its name and description: the registry.
            pub const ALL: &'static [(Self, &'static str, &'static str)] =
                &[$((Self::$constant, $name, $description)),*];
        }
    };
}

/// Doubts about a detection: a set of named bits.
///
/// ```
/// use skystreak::Flags;
///
/// let flags = Flags::END1_OFF_FRAME | Flags::NOT_CONVERGED;
/// assert!(flags.contains(Flags::END1_OFF_FRAME) && !flags.contains(Flags::END2_OFF_FRAME));
/// let both = Flags::END1_OFF_FRAME | Flags::END2_OFF_FRAME;
/// assert!(flags.intersects(both) && !flags.contains(both) && !flags.intersects(Flags::WIDE));
/// assert_eq!(flags.names().collect::<Vec<_>>(), ["end1_off_frame", "not_converged"]);
/// assert_eq!(format!("{flags:?}"), r#"{"end1_off_frame", "not_converged"}"#);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

impl std::fmt::Debug for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

flags! {
    END1_OFF_FRAME = 0, "end1_off_frame", "The track leaves the frame at its first end: that end point was not seen.";
    END2_OFF_FRAME = 1, "end2_off_frame", "The track leaves the frame at its second end: that end point was not seen.";
    END1_MASKED = 2, "end1_masked", "The first end lies among pixels that were left out.";
    END2_MASKED = 3, "end2_masked", "The second end lies among pixels that were left out.";
    NOT_CONVERGED = 4, "not_converged", "The fit stopped before it converged.";
    WIDE = 5, "wide", "The track is wider than the PSF: out of focus, extended or double.";
    NARROW = 6, "narrow", "The track is narrower than the PSF: not light through the optics, perhaps.";
    POOR_FIT = 7, "poor_fit", "Reduced chi-squared above 2: brightness varies along the track, or it is bent or blended.";
    JOINED = 8, "joined", "Joined from pieces with gaps between them.";
    CURVED = 9, "curved", "The track bends: `sagitta_px` differs from zero by more than four standard errors.";
    SUMMED = 10, "summed", "A star that trails, or a point among such stars, so far saturated that no model follows it: its place and flux are of the sums of its light, no fit.";
}

impl Flags {
    /// True when every bit of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These bits without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True when none is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the set bits, in the order of the registry.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().filter(move |f| self.contains(f.0)).map(|f| f.1)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Covariance of (x1, y1, x2, y2), px².
pub type EndCovariance = [[f64; 4]; 4];

/// Flux along a track, in equal bins from its start to its end, each two PSF widths long or more.
///
/// It is the light seen through the PSF: of two flashes nearer than a bin the curve shows one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LightCurve {
    /// Length of track in a bin, px.
    pub bin_px: f64,
    /// Flux per length of track, the detection's `flux_unit` per px. 0 where no pixel could be used.
    pub flux_per_px: Vec<f64>,
    /// Standard errors of `flux_per_px`; infinite where no pixel could be used.
    pub flux_per_px_err: Vec<f64>,
}

/// Half-widths of intervals along the track that hold the truth with 68 % each, px: so far to either side of what is
/// reported.
///
/// Where errors are normal they are the standard errors. The likelihood of a faint trail's end has long tails: there the
/// covariance is made for three standard errors, and one of them holds more than 68 %. Of an end that was not seen they
/// are as wide as the covariance says. A point has no direction: along is x, and the length is 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AlongIntervals {
    /// Of the place of the first end.
    pub start_px: f64,
    /// Of the place of the second end.
    pub end_px: f64,
    /// Of the midpoint.
    pub midpoint_px: f64,
    /// Of the length.
    pub length_px: f64,
}

impl AlongIntervals {
    pub(crate) fn map(self, of: impl Fn(f64) -> f64) -> Self {
        self.zip(self, |v, _| of(v))
    }

    pub(crate) fn zip(self, other: Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self {
            start_px: of(self.start_px, other.start_px),
            end_px: of(self.end_px, other.end_px),
            midpoint_px: of(self.midpoint_px, other.midpoint_px),
            length_px: of(self.length_px, other.length_px),
        }
    }

    /// Those of normal errors.
    pub(crate) fn of_normal_errors(segment: &Segment, covariance_px2: &EndCovariance) -> Self {
        let (c, s) = segment.direction();
        let error = |of: [f64; 2]| standard_error(covariance_px2, [of[0] * c, of[0] * s, of[1] * c, of[1] * s]);
        Self {
            start_px: error([1.0, 0.0]),
            end_px: error([0.0, 1.0]),
            midpoint_px: error([0.5, 0.5]),
            length_px: error([-1.0, 1.0]),
        }
    }
}

/// One streak or point source, measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Streak or point.
    pub kind: Kind,
    /// Target or star.
    pub role: Role,
    /// The geometric ends of the track; `start` is the end of smaller x (then y).
    pub segment: Segment,
    /// Covariance of (x1, y1, x2, y2), px²: the fit's Fisher information, widened along the track to the posterior of faint
    /// ends (or by their change-point floor), so that three standard errors hold its tails, and to the track's length
    /// for an end that was not seen.
    pub covariance_px2: EndCovariance,
    /// The 68 % intervals along the track, narrower than the covariance's where that has to hold long tails.
    pub along_68_px: AlongIntervals,
    /// Gaussian PSF width across the track, px, as the track's own pixels say: what is known of the frame's PSF
    /// beforehand, which helps the fit, is taken out of it again. Of a faint star that is where the common vector fits,
    /// and of a [`Flags::SUMMED`] one, it is the frame's.
    pub sigma_px: f64,
    /// Standard error of `sigma_px`.
    pub sigma_err_px: f64,
    /// Total flux, in `flux_unit`.
    pub flux: f64,
    /// Standard error of `flux`, with what light on the trail's axis adds that may be a star's or a glint's; infinite where it
    /// is not known.
    pub flux_err: f64,
    /// Electrons when the gain is known, else ADU.
    pub flux_unit: FluxUnit,
    /// Matched-filter S/N of the whole track against background noise: the statistic that was compared with the
    /// threshold, with the background held and the width within 8 % of the PSF's.
    pub snr: f64,
    /// χ² per degree of freedom of the fit; 0 where there was none ([`Flags::SUMMED`]).
    pub chi2_reduced: f64,
    /// Iterations of the fit; 0 where there was none.
    pub fit_iterations: u32,
    /// How far the middle of the track lies from the straight line between its ends, px, positive towards its direction
    /// turned from +x to +y; of a parabola through the track. 0 for a point.
    pub sagitta_px: f64,
    /// Standard error of `sagitta_px`; infinite where it is not known.
    pub sagitta_err_px: f64,
    /// Flux along the track; empty for a point.
    pub light_curve: LightCurve,
    /// Doubts.
    pub flags: Flags,
}

impl Detection {
    /// The point half way between the ends, or the position of a point source.
    #[must_use]
    pub fn midpoint(&self) -> Point {
        self.segment.midpoint()
    }

    /// Standard errors of the midpoint along x and y, px.
    #[must_use]
    pub fn midpoint_err_px(&self) -> (f64, f64) {
        (self.propagate([0.5, 0.0, 0.5, 0.0]), self.propagate([0.0, 0.5, 0.0, 0.5]))
    }

    /// Standard errors of the midpoint along and across the track, px.
    #[must_use]
    pub fn midpoint_along_across_err_px(&self) -> (f64, f64) {
        let (c, s) = self.segment.direction();
        (self.propagate([0.5 * c, 0.5 * s, 0.5 * c, 0.5 * s]), self.propagate([-0.5 * s, 0.5 * c, -0.5 * s, 0.5 * c]))
    }

    /// Standard error of each end along the track, px.
    #[must_use]
    pub fn ends_along_err_px(&self) -> (f64, f64) {
        let (c, s) = self.segment.direction();
        (self.propagate([c, s, 0.0, 0.0]), self.propagate([0.0, 0.0, c, s]))
    }

    /// Length, px.
    #[must_use]
    pub fn length_px(&self) -> f64 {
        self.segment.length_px()
    }

    /// Standard error of the length, px.
    #[must_use]
    pub fn length_err_px(&self) -> f64 {
        let (c, s) = self.segment.direction();
        self.propagate([-c, -s, c, s])
    }

    /// Angle of the track from +x towards +y, rad, in [0, π).
    #[must_use]
    pub fn angle_rad(&self) -> f64 {
        self.segment.angle_rad()
    }

    /// Standard error of the angle, rad; infinite for a point.
    #[must_use]
    pub fn angle_err_rad(&self) -> f64 {
        let (c, s) = self.segment.direction();
        self.propagate([s, -c, -s, c]) / self.length_px()
    }

    /// A name made from the content: equal for equal measurements, different for different places.
    #[must_use]
    pub fn id(&self) -> String {
        let s = &self.segment;
        let quantised = [s.start.x, s.start.y, s.end.x, s.end.y].map(|v| (v * 100.0).round() as i64);
        // FNV-1a over hundredths of a pixel: short, stable between runs and platforms.
        let hash = quantised
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        format!("{}-{hash:016x}", self.kind.name())
    }

    /// Standard error of a linear combination of (x1, y1, x2, y2).
    fn propagate(&self, weights: [f64; 4]) -> f64 {
        standard_error(&self.covariance_px2, weights)
    }
}

/// Standard error of a linear combination of (x1, y1, x2, y2).
fn standard_error(covariance_px2: &EndCovariance, weights: [f64; 4]) -> f64 {
    let pairs = (0..4).flat_map(|i| (0..4).map(move |j| (i, j)));
    let variance: f64 = pairs.map(|(i, j)| weights[i] * covariance_px2[i][j] * weights[j]).sum();
    variance.max(0.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detection(covariance_px2: EndCovariance) -> Detection {
        Detection {
            kind: Kind::Streak,
            role: Role::Target,
            segment: Segment::from_coordinates(0.0, 0.0, 30.0, 40.0),
            covariance_px2,
            along_68_px: AlongIntervals { start_px: 0.5, end_px: 0.5, midpoint_px: 0.5, length_px: 0.5 },
            sigma_px: 1.5,
            sigma_err_px: 0.1,
            flux: 100.0,
            flux_err: 5.0,
            flux_unit: FluxUnit::Adu,
            snr: 20.0,
            chi2_reduced: 1.0,
            fit_iterations: 3,
            sagitta_px: 0.0,
            sagitta_err_px: 0.1,
            light_curve: LightCurve::default(),
            flags: Flags::default(),
        }
    }

    #[test]
    fn errors_propagate() {
        // Independent ends, each with variance 4 along x and y.
        let mut covariance = [[0.0; 4]; 4];
        for (i, row) in covariance.iter_mut().enumerate() {
            row[i] = 4.0;
        }
        let d = detection(covariance);
        assert!((d.midpoint_err_px().0 - 2.0_f64.sqrt()).abs() < 1e-12);
        assert!((d.length_err_px() - 8.0_f64.sqrt()).abs() < 1e-12);
        assert!((d.angle_err_rad() - 8.0_f64.sqrt() / 50.0).abs() < 1e-12);
        assert!((d.ends_along_err_px().1 - 2.0).abs() < 1e-12);
        let along = AlongIntervals::of_normal_errors(&d.segment, &covariance);
        assert!((along.start_px - 2.0).abs() < 1e-12 && (along.end_px - 2.0).abs() < 1e-12);
        assert!((along.midpoint_px - 2.0_f64.sqrt()).abs() < 1e-12 && (along.length_px - 8.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn ids_follow_the_content() {
        let a = detection([[0.0; 4]; 4]);
        let mut b = a.clone();
        assert_eq!(a.id(), b.id());
        b.segment.end.x += 0.02;
        assert_ne!(a.id(), b.id());
    }
}
