//! From fitted trails to the report: errors, flags, roles, reasons, order.

use std::time::Instant;

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::detection::{
    AlongIntervals, Detection, EndCovariance, Flags, FluxUnit, FrameFlag, Kind, LightCurve, PsfSource, RejectReason,
    Rejected, Report, Role, TrackingMode,
};
use crate::detector::DetectorConfig;
use crate::frame::Frame;
use crate::geometry::{Point, Segment, track_angle_difference};
use crate::pipeline::along::{self, AlongTrack, Bend, Track};
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::doubles::{self, DOUBLES};
use crate::pipeline::ends::{self, AlongErrors, EndSetting, FaintTrail};
use crate::pipeline::errors::{along_68, widen_ends, widen_width};
use crate::pipeline::judge::{Evidence, KnownTrail, Scene, judge, lies_along};
use crate::pipeline::measure::{
    FitErrors, FitRequest, FitSettings, Shape, SigmaPrior, Trail, TrailFit, UNCLIPPED_SIGMAS,
};
use crate::pipeline::merge::{Believed, Origin};
use crate::pipeline::points::Points;
use crate::pipeline::psf::{effective_sigma, optical_sigma};
use crate::pipeline::star_trails::FREE_SNR;
use crate::pipeline::stars::StarField;
use crate::pipeline::surroundings::Surroundings;
use crate::pipeline::threshold::Thresholds;
use crate::pipeline::tracking::{self, Seen, StarMotion, Tracking};

/// A trail with everything that is known of it, before it is judged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    pub(crate) detection: Detection,
    pub(crate) sigma_eff_px: f64,
    sigma_eff_err_px: f64,
    profile: TrackProfile,
    /// What has been taken out of the residual image for it.
    pub(crate) trail: Trail,
    misfit: f64,
    surroundings: Surroundings,
    gain_over_stars: f64,
    /// One of the stars that were found with the common vector.
    is_known_star: bool,
}

impl Measured {
    /// It does not move with the stars.
    pub(crate) fn is_target(&self, mode: &TrackingMode) -> bool {
        self.detection.role != Role::Star && !tracking::is_star(mode, &as_seen(&self.detection))
    }

    /// A short piece along the stars' direction that touches one: what it hid of another.
    pub(crate) fn is_remnant(&self, stars: &[Trail], motion: &StarMotion) -> bool {
        let segment = &self.detection.segment;
        let is_piece = segment.length_px() < REMNANT_LENGTH * motion.length_px
            && track_angle_difference(segment.angle_rad(), motion.angle_rad) < REMNANT_ANGLE_RAD;
        let touches = |t: &Trail| {
            [segment.start, segment.midpoint(), segment.end]
                .iter()
                .any(|p| t.segment.distance_to(*p) < REMNANT_SIGMAS * self.sigma_eff_px)
        };
        is_piece && stars.iter().any(touches)
    }

    pub(crate) fn as_known(&self) -> KnownTrail {
        KnownTrail { segment: self.detection.segment, sigma_eff_px: self.sigma_eff_px, snr: self.detection.snr }
    }
}

/// What a star hides of another is shorter than this part of it, points along it to this, and lies this near to the
/// star, in PSF widths.
const REMNANT_LENGTH: f64 = 0.75;
const REMNANT_ANGLE_RAD: f64 = 0.4;
const REMNANT_SIGMAS: f64 = 3.0;

/// Limits of the PSF width in the last fit, in units of the frame's.
const WIDTH_RANGE: (f64, f64) = (0.2, 5.0);

/// By how much widths differ in one frame, in units of the PSF's: seeing, focus across the field, the undersampling of
/// sharp images.
const WIDTH_SPREAD: f64 = 0.15;

pub(crate) fn final_settings(shape: Shape, field: &StarField, frame: &Frame<'_>) -> FitSettings {
    let psf_sigma_eff_px = effective_sigma(field.psf_sigma_px);
    // Points are told from hot pixels and galaxies by their width alone.
    let known = field.psf_source != PsfSource::Assumed && shape == Shape::Trail;
    FitSettings {
        shape,
        free_background: true,
        free_sigma: true,
        sigma_range: (WIDTH_RANGE.0 * psf_sigma_eff_px, WIDTH_RANGE.1 * psf_sigma_eff_px),
        sigma_prior: known
            .then_some(SigmaPrior { sigma_px: psf_sigma_eff_px, spread_px: WIDTH_SPREAD * psf_sigma_eff_px }),
        reach_px: 6.0 * psf_sigma_eff_px + 3.0,
        photon_variance: frame.gain_e_per_adu().map_or(0.0, |g| 1.0 / g),
        clip_sigmas: UNCLIPPED_SIGMAS,
        max_iterations: 40,
    }
}

/// The last fit of every trail, background and width free; leaves the trails back in the residual image.
pub(crate) fn measure_trails(
    backend: &mut dyn Backend,
    frame: &Frame<'_>,
    field: &StarField,
    chains: &ChainPrior,
    tracking: Tracking,
    trails: Vec<Believed>,
    motion: Option<&StarMotion>,
) -> Result<Vec<Measured>> {
    let sigma_eff = effective_sigma(field.psf_sigma_px);
    let settings = final_settings(Shape::Trail, field, frame);
    // A piece that lies along a brighter trail, or is too short for a streak, may be that trail's end: its light is
    // there when the others are fitted.
    let known: Vec<KnownTrail> = trails.iter().map(Believed::as_known).collect();
    let is_part = |b: &Believed| {
        let segment = &b.fit.trail.segment;
        if b.origin == Origin::Star {
            return false;
        }
        segment.length_px() < 3.0 * sigma_eff || known.iter().any(|k| lies_along(segment, b.fit.snr, k))
    };
    let of = |which: &dyn Fn(&Believed) -> bool| -> Vec<Trail> {
        trails.iter().filter(|b| which(b)).map(|b| b.fit.trail).collect()
    };
    backend.add_trails(&of(&is_part), 1.0)?;
    let requests: Vec<FitRequest> =
        trails.iter().map(|b| FitRequest { start: b.fit.trail, subtracted: !is_part(b) }).collect();
    // A faint star is where its common vector fits: its own ends say less.
    let held: Vec<bool> = trails.iter().map(|b| b.origin == Origin::Star && b.fit.snr < FREE_SNR).collect();
    let which = |held_too: bool| held.iter().zip(&requests).filter(move |(h, _)| **h == held_too).map(|(_, r)| *r);
    let mut free = backend.fit(&which(false).collect::<Vec<_>>(), &settings)?.into_iter();
    let mut as_they_are =
        backend.fit(&which(true).collect::<Vec<_>>(), &FitSettings { max_iterations: 0, ..settings })?.into_iter();
    let in_turn = held.iter().map(|h| if *h { as_they_are.next() } else { free.next() });
    let mut fits: Vec<LastFit> = in_turn.flatten().map(|fit| LastFit { fit, settings }).collect();
    let other: Vec<usize> = (0..fits.len()).filter(|&i| !held[i] && fits[i].contradicts_prior()).collect();
    let of_other: Vec<FitRequest> = other.iter().map(|&i| requests[i]).collect();
    let without_prior = FitSettings { sigma_prior: None, ..settings };
    for (i, fit) in other.into_iter().zip(backend.fit(&of_other, &without_prior)?) {
        fits[i] = LastFit { fit, settings: without_prior };
    }
    let (mut usable, settings_of): (Vec<TrailFit>, Vec<FitSettings>) =
        fits.into_iter().zip(&trails).map(|(last, b)| last.or_steadier(b)).map(|l| (l.fit, l.settings)).unzip();
    let taken_out: Vec<Option<Trail>> = trails.iter().map(|b| (!is_part(b)).then_some(b.fit.trail)).collect();
    // Behind a mask an end may be anywhere, and is not looked for; a star's are those of its common vector.
    let is_seen = |f: &TrailFit| f.end_coverage.iter().all(|c| *c >= MIN_END_COVERAGE);
    let subjects: Vec<Option<FaintTrail>> = usable
        .iter()
        .enumerate()
        .map(|(i, f)| {
            let subject = FaintTrail { trail: f.trail, snr: trails[i].fit.snr, taken_out: taken_out[i] };
            (!held[i] && is_seen(f)).then_some(subject)
        })
        .collect();
    let setting = EndSetting {
        width: frame.width(),
        height: frame.height(),
        sigma_px: sigma_eff,
        noise_excess: chains.noise_excess(),
        photon_variance: settings.photon_variance,
    };
    let ends = ends::expected(backend, &subjects, &setting)?;
    for (fit, ends) in usable.iter_mut().zip(&ends) {
        if let Some(ends) = ends {
            fit.trail.segment = ends.segment;
        }
    }
    let on_track: Vec<Segment> =
        usable.iter().flat_map(|f| AlongTrack::tracks(&seen_segment(f, frame), sigma_eff)).collect();
    let on_track = backend.profiles(&on_track, sigma_eff as f32)?;
    // In structured sky faint trails lie side by side: each has to stand out from the light of the others.
    let mode = tracking::decide(tracking, &trails.iter().map(Believed::as_seen).collect::<Vec<_>>());
    let is_out = |b: &Believed| !is_part(b) && (b.fit.snr >= STANDS_OUT_SNR || mode != TrackingMode::Sidereal);
    backend.add_trails(&of(&|b| !is_part(b) && !is_out(b)), 1.0)?;
    let beside: Vec<Segment> = usable.iter().flat_map(|f| Surroundings::tracks(&f.trail.segment, sigma_eff)).collect();
    let beside = backend.profiles(&beside, sigma_eff as f32)?;
    // A brighter trail that crosses is no star on this one.
    let tracks: Vec<Segment> = usable.iter().map(|f| chains.track(&f.trail.segment)).collect();
    let without_others = backend.profiles(&tracks, sigma_eff as f32)?;
    let profiles = tracks.iter().zip(&without_others).zip(&trails).map(|((segment, profile), believed)| {
        let taken_out = is_out(believed).then_some(&believed.fit.trail);
        Track { segment: *segment, profile, taken_out, sigma_px: sigma_eff }.whole()
    });
    backend.add_trails(&of(&is_out), 1.0)?;
    let gains = gains_over_stars(backend, &usable, &mode, chains, sigma_eff)?;
    let seen = beside.chunks(Surroundings::N_TRACKS).zip(on_track.chunks(along::N_TRACKS)).zip(profiles).zip(gains);
    Ok(usable
        .iter()
        .zip(&settings_of)
        .zip(&trails)
        .zip(taken_out.iter().map(Option::as_ref))
        .zip(seen.zip(&ends))
        .map(|((((fit, settings), believed), taken_out), ((((beside, on_track), profile), gain_over_stars), ends))| {
            let snr = believed.fit.snr;
            let along = AlongTrack {
                segment: seen_segment(fit, frame),
                trail: &fit.trail,
                taken_out,
                sigma_px: sigma_eff,
                profiles: on_track,
                snr,
                photon_variance: settings.photon_variance,
            };
            let known = motion.filter(|_| believed.origin == Origin::Star && snr < FREE_SNR);
            let mut detection = detection(fit, settings, frame, field, snr, known, ends.map(|e| e.along));
            add_shape(&mut detection, &along, frame);
            match believed.origin {
                Origin::Found => {}
                Origin::Joined => detection.flags |= Flags::JOINED,
                Origin::Parted | Origin::Star => detection.role = Role::Star,
            }
            Measured {
                detection,
                sigma_eff_px: fit.trail.sigma_eff_px,
                sigma_eff_err_px: EndsSeen::of(fit, settings, frame)
                    .errors(fit, settings, known)
                    .map_or(fit.trail.sigma_eff_px, |e| e.sigma_eff_err),
                profile,
                trail: if believed.origin == Origin::Star { believed.fit.trail } else { fit.trail },
                is_known_star: believed.origin == Origin::Star,
                misfit: fit.misfit(settings),
                surroundings: Surroundings::from_profiles(
                    beside,
                    if is_out(believed) { snr } else { 0.0 },
                    chains.noise_excess(),
                ),
                gain_over_stars,
            }
        })
        .collect())
}

/// How much more than a few stars each trail explains, in S/N²; where the stars are trails themselves, or a trail is
/// too long for a few stars, no end of it. The trails are in the residual image.
fn gains_over_stars(
    backend: &mut dyn Backend,
    fits: &[TrailFit],
    mode: &TrackingMode,
    chains: &ChainPrior,
    sigma_eff: f64,
) -> Result<Vec<f64>> {
    let mut gains = vec![f64::INFINITY; fits.len()];
    if *mode != TrackingMode::Sidereal {
        return Ok(gains);
    }
    for doubles in &DOUBLES {
        let could_be = |fit: &TrailFit| {
            let [least, most] = doubles.snr;
            (least..most).contains(&fit.snr) && fit.trail.segment.length_px() < doubles.longest_sigmas * sigma_eff
        };
        let some: Vec<usize> = (0..fits.len()).filter(|&i| could_be(&fits[i])).collect();
        let trails: Vec<Trail> = some.iter().map(|&i| fits[i].trail).collect();
        let of_some = doubles::gains_over_stars(backend, &trails, doubles, sigma_eff, chains.star_price())?;
        for (i, gain) in some.into_iter().zip(of_some) {
            gains[i] = gain;
        }
    }
    Ok(gains)
}

/// The part of a fitted trail inside the frame, first the end of smaller x.
fn seen_segment(fit: &TrailFit, frame: &Frame<'_>) -> Segment {
    let ordered = fit.trail.segment.ordered();
    ordered.clipped_to(frame.width(), frame.height()).unwrap_or(ordered)
}

fn add_shape(detection: &mut Detection, along: &AlongTrack<'_>, frame: &Frame<'_>) {
    let to_flux = frame.gain_e_per_adu().unwrap_or(1.0);
    let mut curve = along.light_curve();
    curve.flux_per_px.iter_mut().chain(&mut curve.flux_per_px_err).for_each(|v| *v *= to_flux);
    detection.light_curve = curve;
    let bend = along.bend();
    (detection.sagitta_px, detection.sagitta_err_px) = (bend.sagitta_px, bend.err_px);
    if bend.is_clear() {
        detection.flags |= Flags::CURVED;
    }
}

/// Trails of this S/N and more stand out from any sky, and would light what lies beside them.
const STANDS_OUT_SNR: f64 = 40.0;

/// A width by so many of its errors and the prior's off what is expected is another one: out of focus, not through
/// the optics.
const OTHER_WIDTH: f64 = 2.5;

/// The last fit of a trail, and what it was made with: only of a prior that was there can it be freed again.
#[derive(Debug, Clone, Copy)]
struct LastFit {
    fit: TrailFit,
    settings: FitSettings,
}

impl LastFit {
    /// Whether the pixels alone say another width than is known beforehand.
    fn contradicts_prior(&self) -> bool {
        let Self { fit, settings } = self;
        let (Some(prior), Some(errors)) = (settings.sigma_prior, fit.errors_with(settings, [false; 2])) else {
            return false;
        };
        let own = fit.own_width(settings, errors.sigma_eff_err);
        (own.sigma_eff_px - prior.sigma_px).abs() > OTHER_WIDTH * own.err_px.hypot(prior.spread_px)
    }

    /// Where it wandered off, the fit it started from, which held the background and had no prior.
    fn or_steadier(self, believed: &Believed) -> Self {
        let Self { fit, settings } = self;
        let (a, b) = (&fit.trail.segment, &believed.fit.trail.segment);
        let overlaps = a.distance_to(b.midpoint()) < 2.0 * believed.fit.trail.sigma_eff_px;
        let sane = fit.trail.flux > 0.0 && fit.errors_with(&settings, [false; 2]).is_some() && overlaps;
        let without_prior = FitSettings { sigma_prior: None, ..settings };
        if sane { self } else { Self { fit: believed.fit.without_background(), settings: without_prior } }
    }
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
) -> Detection {
    let gain = frame.gain_e_per_adu();
    let is_trail = settings.shape == Shape::Trail;
    let ends = EndsSeen::of(fit, settings, frame);
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
        let half = along_68(&covariance, &segment, snr, ends.unseen(), along.as_ref());
        widen_ends(&mut covariance, &segment, snr, ends.unseen(), along.as_ref());
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
    Detection {
        kind: if settings.shape == Shape::Point { Kind::Point } else { Kind::Streak },
        role: Role::Target,
        segment,
        covariance_px2: covariance,
        along_68_px,
        sigma_px,
        // dσ = σ_eff dσ_eff / σ.
        sigma_err_px: width_err * own.sigma_eff_px / sigma_px.max(0.1),
        flux: fit.trail.flux * to_flux,
        flux_err: errors.map_or(f64::INFINITY, |e| e.flux_err) * to_flux,
        flux_unit: if gain.is_some() { FluxUnit::Electron } else { FluxUnit::Adu },
        snr,
        chi2_reduced,
        fit_iterations: fit.iterations,
        sagitta_px: Bend::UNKNOWN.sagitta_px,
        sagitta_err_px: Bend::UNKNOWN.err_px,
        light_curve: LightCurve::default(),
        flags,
    }
}

/// An end with less of its light than this on usable pixels was not seen.
const MIN_END_COVERAGE: f64 = 0.6;

/// The ends of a fitted trail as they are reported, that of smaller x first.
struct EndsSeen {
    segment: Segment,
    /// The fit has them the other way round.
    swapped: bool,
    at_border: [bool; 2],
    /// Most of its light fell on pixels that were left out.
    hidden: [bool; 2],
}

impl EndsSeen {
    fn of(fit: &TrailFit, settings: &FitSettings, frame: &Frame<'_>) -> Self {
        let ordered = fit.trail.segment.ordered();
        let swapped = ordered != fit.trail.segment;
        if settings.shape == Shape::Point {
            return Self { segment: ordered, swapped, at_border: [false; 2], hidden: [false; 2] };
        }
        let segment = seen_segment(fit, frame);
        let mut coverage = fit.end_coverage;
        if swapped {
            coverage.reverse();
        }
        Self {
            segment,
            swapped,
            at_border: [segment.start, segment.end].map(|end| distance_to_border(end, frame) < fit.trail.sigma_eff_px),
            hidden: coverage.map(|c| c < MIN_END_COVERAGE),
        }
    }

    fn unseen(&self) -> [bool; 2] {
        [0, 1].map(|end| self.at_border[end] || self.hidden[end])
    }

    fn errors(&self, fit: &TrailFit, settings: &FitSettings, known: Option<&StarMotion>) -> Option<FitErrors> {
        let mut seen = self.unseen().map(|unseen| !unseen);
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
            } else if self.hidden[end] {
                flags |= masked[end];
            }
        }
        flags
    }
}

pub(crate) fn distance_to_border(p: Point, frame: &Frame<'_>) -> f64 {
    let (right, bottom) = (frame.width() as f64 - 0.5, frame.height() as f64 - 0.5);
    (p.x + 0.5).min(p.y + 0.5).min(right - p.x).min(bottom - p.y)
}

fn unknown(length_px: f64) -> EndCovariance {
    std::array::from_fn(|i| std::array::from_fn(|j| if i == j { length_px * length_px } else { 0.0 }))
}

/// How the trails of a frame say that the telescope moved.
pub(crate) fn tracking_of(tracking: Tracking, measured: &[Measured]) -> TrackingMode {
    let seen: Vec<Seen> = measured.iter().map(|m| as_seen(&m.detection)).collect();
    tracking::decide(tracking, &seen)
}

/// A trail wider than so many PSF widths may be two side by side: chance widens a faint one, a star beside it a bright
/// one.
fn clear_width(snr: f64) -> f64 {
    if snr < 20.0 { 1.12 } else { 1.25 }
}

/// Trails that are clearly none of the stars, nor made of them, of some S/N and more. They would be taken for several.
/// Once the bright stars are known, short ones are too, unless they may be what is left of one.
pub(crate) fn clear_targets(
    measured: Vec<Measured>,
    motion: &StarMotion,
    sigma_eff_px: f64,
    least_snr: f64,
    bright: Option<&[Trail]>,
) -> Vec<Measured> {
    let blended = [Flags::WIDE, Flags::CURVED, Flags::JOINED];
    let is_clear = |m: &Measured| {
        m.detection.snr >= least_snr
            && m.sigma_eff_px < clear_width(m.detection.snr) * sigma_eff_px
            && !blended.iter().any(|f| m.detection.flags.contains(*f))
            && m.is_target(&motion.mode())
            && (tracking::is_distinct(&m.detection.segment, motion)
                || bright.is_some_and(|stars| {
                    tracking::is_short_and_turned(&m.detection.segment, motion) && !m.is_remnant(stars, motion)
                }))
    };
    measured.into_iter().filter(is_clear).collect()
}

/// A candidate no longer than so many of its widths looks like a point.
const POINT_WIDTHS: f64 = 6.0;

/// What becomes the report.
pub(crate) struct Findings<'a> {
    frame: &'a Frame<'a>,
    field: &'a StarField,
    config: &'a DetectorConfig,
    thresholds: Thresholds,
    chains: ChainPrior,
    longest_px: f64,
    pub(crate) tracking: TrackingMode,
    detections: Vec<Detection>,
    rejected: Vec<Rejected>,
    /// What is taken out of the residual image before points are looked for.
    pub(crate) trails: Vec<Trail>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(
        frame: &'a Frame<'a>,
        field: &'a StarField,
        config: &'a DetectorConfig,
        thresholds: Thresholds,
        chains: ChainPrior,
        longest_px: f64,
    ) -> Self {
        Self {
            frame,
            field,
            config,
            thresholds,
            chains,
            longest_px,
            tracking: TrackingMode::Sidereal,
            detections: Vec::new(),
            rejected: field
                .bleeds
                .iter()
                .filter(|(segment, _)| segment.length_px() >= config.search.min_length_px)
                .map(|&(segment, snr)| Rejected { segment, snr, reason: RejectReason::BleedColumn })
                .collect(),
            trails: Vec::new(),
        }
    }

    /// Sorts trails into stars, targets and rejected ones, and decides how the telescope moved.
    ///
    /// Stars that were found with the common vector of `mode` need no judge: they are reported from `least_star_snr` on.
    pub(crate) fn judge_trails(&mut self, measured: Vec<Measured>, mode: Option<TrackingMode>, least_star_snr: f64) {
        let trails: Vec<KnownTrail> = measured.iter().map(Measured::as_known).collect();
        for m in measured {
            if m.is_known_star {
                self.trails.push(m.trail);
                if m.detection.snr >= least_star_snr {
                    self.detections.push(m.detection);
                }
                continue;
            }
            let scene = Scene {
                width: self.frame.width(),
                height: self.frame.height(),
                psf_sigma_eff_px: effective_sigma(self.field.psf_sigma_px),
                min_length_px: self.config.search.min_length_px,
                chains: self.chains,
                noise_excess: self.thresholds.noise_excess,
                stars: &self.field.bright,
                trails: &trails,
            };
            let evidence = Evidence {
                segment: m.detection.segment,
                length_68_px: m.detection.along_68_px.length_px,
                sigma_eff_px: m.sigma_eff_px,
                sigma_eff_err_px: m.sigma_eff_err_px,
                snr: m.detection.snr,
                threshold_snr: self.thresholds.for_length(m.detection.segment.length_px()),
                has_light: m.detection.flux > m.detection.flux_err,
                misfit: m.misfit,
                surroundings: m.surroundings,
                profile: &m.profile,
                gain_over_stars: m.gain_over_stars,
            };
            let verdict = judge(&evidence, &scene, &self.config.judge);
            // A short one that is no streak may be a point.
            if verdict != Some(RejectReason::StarResidual) || m.detection.length_px() > POINT_WIDTHS * m.sigma_eff_px {
                self.trails.push(m.trail);
            }
            match verdict {
                None => self.detections.push(m.detection),
                Some(reason) => {
                    self.rejected.push(Rejected { segment: m.detection.segment, snr: m.detection.snr, reason });
                }
            }
        }
        let seen: Vec<Seen> = self.detections.iter().map(as_seen).collect();
        self.tracking = mode.unwrap_or_else(|| tracking::decide(self.config.tracking, &seen));
        for (detection, seen) in self.detections.iter_mut().zip(&seen) {
            if self.tracking == TrackingMode::Sidereal {
                detection.role = Role::Target;
            } else if tracking::is_star(&self.tracking, seen) {
                detection.role = Role::Star;
            }
        }
    }

    pub(crate) fn add_points(&mut self, points: Points) {
        self.detections.extend(points.detections);
        self.rejected.extend(points.rejected);
    }

    pub(crate) fn into_report(mut self, device: &str, stages_ms: Vec<(&'static str, f64)>, begin: Instant) -> Report {
        let key = |s: &Segment| (s.start.x, s.start.y);
        let order = |a: (f64, &Segment), b: (f64, &Segment)| {
            b.0.total_cmp(&a.0).then(key(a.1).0.total_cmp(&key(b.1).0)).then(key(a.1).1.total_cmp(&key(b.1).1))
        };
        self.detections.sort_by(|a, b| order((a.snr, &a.segment), (b.snr, &b.segment)));
        self.rejected.sort_by(|a, b| order((a.snr, &a.segment), (b.snr, &b.segment)));
        let mut flags = Vec::new();
        if self.longest_px == 0.0 {
            flags.push(FrameFlag::TooSmall);
        }
        if self.field.psf_source == PsfSource::Assumed {
            flags.push(FrameFlag::PsfAssumed);
        }
        Report {
            width: self.frame.width(),
            height: self.frame.height(),
            device: device.to_owned(),
            tracking: self.tracking,
            psf_sigma_px: self.field.psf_sigma_px,
            psf_source: self.field.psf_source,
            times: self.frame.times().cloned(),
            exposure_secs: self.frame.exposure_secs(),
            threshold_snr: self.thresholds.lowest(),
            detections: self.detections,
            rejected: self.rejected,
            flags,
            stages_ms,
            operations_ms: Vec::new(),
            total_ms: begin.elapsed().as_secs_f64() * 1e3,
        }
    }
}

fn as_seen(d: &Detection) -> Seen {
    let cut = [Flags::END1_OFF_FRAME, Flags::END2_OFF_FRAME, Flags::END1_MASKED, Flags::END2_MASKED];
    Seen {
        segment: d.segment,
        snr: d.snr,
        length_68_px: d.along_68_px.length_px,
        whole: !cut.iter().any(|f| d.flags.contains(*f)),
        wide: d.flags.contains(Flags::WIDE) || d.flags.contains(Flags::CURVED),
    }
}
