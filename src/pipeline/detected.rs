//! Measure stage: what is reported of one fit: its ends as they were seen, errors, flags.
//!
//! Method: docs/algorithm.md, "Measure".

use crate::detection::{AlongIntervals, Detection, EndCovariance, Flags, FluxUnit, Kind, LightCurve, Role};
use crate::frame::Frame;
use crate::geometry::{Point, Segment};
use crate::pipeline::along::Bend;
use crate::pipeline::ends::AlongErrors;
use crate::pipeline::errors::{along_68, widen_ends, widen_width};
use crate::pipeline::measure::{FitErrors, FitSettings, Shape, TrailFit};
use crate::pipeline::psf::{effective_sigma, optical_sigma};
use crate::pipeline::stars::StarField;
use crate::pipeline::tracking::StarMotion;

/// A detection, with what the judge wants to know beside it.
pub(crate) struct Reported {
    pub(crate) detection: Detection,
    /// Standard error of the fitted width, what is known of the PSF included.
    pub(crate) sigma_eff_err_px: f64,
    /// What of its flux may lie among pixels left out at its ends, or not.
    pub(crate) hidden_flux: f64,
}

/// What is reported of a fit. Of a star that is where its common vector fits this is `known`, of ends that were looked at
/// again their errors along the track.
pub(crate) fn detection(
    fit: &TrailFit,
    settings: &FitSettings,
    frame: &Frame<'_>,
    field: &StarField,
    snr: f64,
    known: Option<&StarMotion>,
    along: Option<AlongErrors>,
    hidden_px: [f64; 2],
) -> Reported {
    let gain = frame.gain_e_per_adu();
    let is_trail = settings.shape == Shape::Trail;
    let ends = EndsSeen::of(fit, settings, frame, hidden_px);
    let segment = ends.segment;
    // What of the trail lies beyond the border was not seen; its light is not counted.
    let share = if is_trail { segment.length_px() / fit.trail.segment.length_px() } else { 1.0 };
    let to_flux = gain.unwrap_or(1.0) * share;
    let errors = ends.errors(fit, settings, known);
    let mut covariance = errors.map_or_else(|| unknown(segment.length_px()), |e| e.covariance_px2);
    if ends.swapped {
        covariance = std::array::from_fn(|i| std::array::from_fn(|j| covariance[(i + 2) % 4][(j + 2) % 4]));
    }
    let sigma_eff = fit.trail.sigma_eff_px;
    let sigma_eff_err = errors.map_or(sigma_eff, |e| e.sigma_eff_err);
    // What is known of the PSF beforehand helps the fit; of a track's own width its pixels tell.
    let own = fit.own_width(settings, sigma_eff_err);
    let sigma_px = optical_sigma(own.sigma_eff_px);
    let mut flags = ends.flags();
    let mut width_err = own.err_px;
    let along_68_px = if is_trail && known.is_none() {
        width_err = widen_width(width_err, snr);
        let along = along.map(|along| if ends.swapped { along.turned() } else { along });
        let unseen_px = ends.unseen_px();
        let half = along_68(&covariance, &segment, snr, unseen_px, along.as_ref());
        widen_ends(&mut covariance, &segment, snr, unseen_px, along.as_ref());
        half
    } else {
        AlongIntervals::of_normal_errors(&segment, &covariance)
    };
    if !fit.converged && known.is_none() {
        flags |= Flags::NOT_CONVERGED;
    }
    let chi2_reduced = fit.chi2_reduced(settings);
    if chi2_reduced > 2.0 {
        flags |= Flags::POOR_FIT;
    }
    let psf = effective_sigma(field.psf_sigma_px);
    if sigma_eff - 3.0 * sigma_eff_err > 1.2 * psf {
        flags |= Flags::WIDE;
    } else if sigma_eff + 3.0 * sigma_eff_err < 0.85 * psf {
        flags |= Flags::NARROW;
    }
    let flux = fit.trail.flux * to_flux;
    let detection = Detection {
        kind: if settings.shape == Shape::Point { Kind::Point } else { Kind::Streak },
        role: Role::Target,
        segment,
        covariance_px2: covariance,
        along_68_px,
        sigma_px,
        // dσ = σ_eff dσ_eff / σ.
        sigma_err_px: width_err * own.sigma_eff_px / sigma_px.max(0.1),
        flux,
        flux_err: errors.map_or(f64::INFINITY, |e| e.flux_err) * to_flux,
        flux_unit: if gain.is_some() { FluxUnit::Electron } else { FluxUnit::Adu },
        snr,
        chi2_reduced,
        fit_iterations: fit.iterations,
        sagitta_px: Bend::UNKNOWN.sagitta_px,
        sagitta_err_px: Bend::UNKNOWN.err_px,
        light_curve: LightCurve::default(),
        flags,
    };
    let hidden_flux = if is_trail { flux * ends.hidden_part() } else { 0.0 };
    Reported { detection, sigma_eff_err_px: sigma_eff_err, hidden_flux }
}

/// The ends of a fitted trail as they are reported, that of smaller x first.
struct EndsSeen {
    segment: Segment,
    /// The fit has them the other way round.
    swapped: bool,
    at_border: [bool; 2],
    /// So far pixels that were left out reach where most of its light fell on these, else 0.
    hidden_px: [f64; 2],
}

impl EndsSeen {
    fn of(fit: &TrailFit, settings: &FitSettings, frame: &Frame<'_>, mut hidden_px: [f64; 2]) -> Self {
        let ordered = fit.trail.segment.ordered();
        let swapped = ordered != fit.trail.segment;
        if settings.shape == Shape::Point {
            return Self { segment: ordered, swapped, at_border: [false; 2], hidden_px };
        }
        let segment = seen_segment(fit, frame);
        if swapped {
            hidden_px.reverse();
        }
        Self {
            segment,
            swapped,
            at_border: [segment.start, segment.end].map(|end| distance_to_border(end, frame) < fit.trail.sigma_eff_px),
            hidden_px,
        }
    }

    /// How far off they may lie: behind the border as far as the trail is long, among pixels left out as far as these reach.
    fn unseen_px(&self) -> [f64; 2] {
        [0, 1].map(|end| if self.at_border[end] { self.segment.length_px() } else { self.hidden_px[end] })
    }

    /// What of the light was not seen that lies among pixels left out, as a part of what was.
    fn hidden_part(&self) -> f64 {
        let hidden = [0, 1].map(|end| if self.at_border[end] { 0.0 } else { self.hidden_px[end] });
        hidden[0].hypot(hidden[1]) / self.segment.length_px().max(1e-9)
    }

    fn errors(&self, fit: &TrailFit, settings: &FitSettings, known: Option<&StarMotion>) -> Option<FitErrors> {
        let mut seen = self.unseen_px().map(|px| px == 0.0);
        if self.swapped {
            seen.reverse();
        }
        match known {
            Some(motion) => fit.errors_of_known_vector(motion.length_err_px, motion.angle_err_rad),
            None => fit.errors_with(settings, seen),
        }
    }

    fn flags(&self) -> Flags {
        let off_frame = [Flags::END1_OFF_FRAME, Flags::END2_OFF_FRAME];
        let masked = [Flags::END1_MASKED, Flags::END2_MASKED];
        let mut flags = Flags::default();
        for end in 0..2 {
            if self.at_border[end] {
                flags |= off_frame[end];
            } else if self.hidden_px[end] > 0.0 {
                flags |= masked[end];
            }
        }
        flags
    }
}

/// The part of a fitted trail inside the frame, first the end of smaller x.
pub(crate) fn seen_segment(fit: &TrailFit, frame: &Frame<'_>) -> Segment {
    let ordered = fit.trail.segment.ordered();
    ordered.clipped_to(frame.width(), frame.height()).unwrap_or(ordered)
}

pub(crate) fn distance_to_border(p: Point, frame: &Frame<'_>) -> f64 {
    let (right, bottom) = (frame.width() as f64 - 0.5, frame.height() as f64 - 0.5);
    (p.x + 0.5).min(p.y + 0.5).min(right - p.x).min(bottom - p.y)
}

fn unknown(length_px: f64) -> EndCovariance {
    std::array::from_fn(|i| std::array::from_fn(|j| if i == j { length_px * length_px } else { 0.0 }))
}
