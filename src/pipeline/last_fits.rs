//! Measure stage: the last fit of every trail, and what is known of it before it is judged.
//!
//! Method: docs/algorithm.md, "Measure".

use rayon::prelude::*;

use crate::Result;
use crate::backend::{Backend, TrackProfile};
use crate::detection::{Detection, Flags, Role};
use crate::frame::Frame;
use crate::geometry::{Segment, track_angle_difference};
use crate::pipeline::along::{self, AlongTrack, Track};
use crate::pipeline::believed::{Believed, Origin};
use crate::pipeline::blends;
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::detected::{Reported, detection, seen_segment};
use crate::pipeline::doubles::{self, DOUBLES};
use crate::pipeline::ends::{EndSetting, KnownStars, Stars};
use crate::pipeline::hidden;
use crate::pipeline::judge::{KnownTrail, lies_along};
use crate::pipeline::measure::{FitRequest, FitSettings, Shape, SigmaPrior, Trail, TrailFit, UNCLIPPED_SIGMAS};
use crate::pipeline::psf::effective_sigma;
use crate::pipeline::reported_fits::{ReportedFits, reported_fits, taken_out};
use crate::pipeline::spikes;
use crate::pipeline::stars::StarField;
use crate::pipeline::surroundings::Surroundings;
use crate::pipeline::tracking::{self, Seen, StarMotion, Tracking};
use crate::report::{PsfSource, TrackingMode};

/// A trail with everything that is known of it, before it is judged.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Measured {
    pub(crate) detection: Detection,
    /// The part inside the frame of the trail that was fitted to all light there is, that of stars at its ends too.
    pub(crate) fitted: Segment,
    pub(crate) sigma_eff_px: f64,
    pub(crate) sigma_eff_err_px: f64,
    pub(crate) profile: TrackProfile,
    /// What has been taken out of the residual image for it.
    pub(crate) trail: Trail,
    /// Its flux is more than the fit's error of it.
    pub(crate) has_light: bool,
    pub(crate) misfit: f64,
    pub(crate) surroundings: Surroundings,
    pub(crate) gain_over_stars: f64,
    /// It looks like the spike of a star, but for the other side.
    pub(crate) has_no_twin: bool,
    /// See [`Believed`].
    pub(crate) gain_over_star_trails: Option<f64>,
    /// One of the stars that were found with the common vector.
    pub(crate) is_known_star: bool,
    /// See [`Believed`].
    pub(crate) is_part_of_wings: bool,
}

impl Measured {
    /// As it was before it was measured.
    pub(crate) fn as_believed(&self) -> Believed {
        let fit = TrailFit { snr: self.detection.snr, ..TrailFit::unfitted(self.trail) };
        let is_joined = self.detection.flags.contains(Flags::JOINED);
        let origin = if is_joined { Origin::Joined } else { Origin::Found };
        Believed { gain_over_star_trails: self.gain_over_star_trails, ..Believed::new(fit, origin) }
    }

    /// It does not move with the stars.
    pub(crate) fn is_target(&self, mode: &TrackingMode) -> bool {
        self.detection.role != Role::Star && !tracking::is_star(mode, &as_seen(&self.detection))
    }

    /// Where stars cover this share of the frame, they may well lie in a row and explain it.
    pub(crate) fn may_be_row(&self, motion: &StarMotion, covered: f64) -> bool {
        let turn_rad = track_angle_difference(self.detection.segment.angle_rad(), motion.angle_rad);
        self.gain_over_star_trails.is_some_and(|gain| blends::may_be_row(gain, turn_rad, covered))
    }

    /// A short piece along the stars' direction that touches one: what it hid of another, or what its model left of it.
    /// The first is explained by a star as well, the second is far fainter than the star.
    pub(crate) fn is_remnant(&self, stars: &[Trail], motion: &StarMotion) -> bool {
        let segment = &self.detection.segment;
        let is_piece = tracking::is_short(segment, motion)
            && track_angle_difference(segment.angle_rad(), motion.angle_rad) < REMNANT_ANGLE_RAD;
        let touches = |t: &Trail| {
            [segment.start, segment.midpoint(), segment.end]
                .iter()
                .any(|p| t.segment.distance_to(*p) < REMNANT_SIGMAS * self.sigma_eff_px)
        };
        let density = |t: &Trail| t.flux / t.segment.length_px();
        let stands_out = |t: &Trail| {
            self.gain_over_star_trails.is_some_and(|gain| gain > REMNANT_GAIN)
                && density(&self.trail) > REMNANT_LIGHT * density(t)
        };
        is_piece && stars.iter().any(|t| touches(t) && !stands_out(t))
    }

    pub(crate) fn as_known(&self) -> KnownTrail {
        KnownTrail { segment: self.detection.segment, sigma_eff_px: self.sigma_eff_px, snr: self.detection.snr }
    }
}

/// What a star hides of another is short, points along it to this, and lies this near to the star, in PSF widths.
const REMNANT_ANGLE_RAD: f64 = 0.4;
const REMNANT_SIGMAS: f64 = 3.0;

/// It explains no more than this above what stars do, in S/N², or has less than this share of the star's light per length.
const REMNANT_GAIN: f64 = 35.0;
const REMNANT_LIGHT: f64 = 0.3;

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

/// Which trails are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Among<'a> {
    /// All of a frame.
    All,
    /// What is left where the stars' trails have been taken out; with these where it was out itself while they were fitted:
    /// then it is known what light they may share.
    Left(Option<&'a KnownStars>),
    /// Those stars.
    TheStars(&'a StarMotion),
}

/// The last fit of every trail, background and width free; leaves the trails back in the residual image.
pub(crate) fn measure_trails(
    backend: &mut dyn Backend,
    frame: &Frame<'_>,
    field: &StarField,
    chains: &ChainPrior,
    tracking: Tracking,
    trails: Vec<Believed>,
    among: Among<'_>,
) -> Result<Vec<Measured>> {
    let motion = if let Among::TheStars(motion) = among { Some(motion) } else { None };
    let sigma_eff = effective_sigma(field.psf_sigma_px);
    let settings = final_settings(Shape::Trail, field, frame);
    // A piece that lies along a brighter trail, or is too short for a streak, may be that trail's end: its light is
    // there when the others are fitted.
    let known: Vec<KnownTrail> = trails.iter().map(Believed::as_known).collect();
    let is_part = |b: &Believed| {
        let segment = &b.fit.trail.segment;
        let lies_along_any = || known.iter().any(|k| lies_along(segment, b.fit.snr, k));
        b.origin != Origin::Star && (segment.length_px() < 3.0 * sigma_eff || lies_along_any())
    };
    let is_part: Vec<bool> = trails.par_iter().map(is_part).collect();
    let of = |which: &dyn Fn(usize) -> bool| -> Vec<Trail> {
        (0..trails.len()).filter(|i| which(*i)).map(|i| trails[i].fit.trail).collect()
    };
    backend.add_trails(&of(&|i| is_part[i]), 1.0)?;
    let request = |(b, is_part): (&Believed, &bool)| FitRequest { start: b.fit.trail, subtracted: !is_part };
    let requests: Vec<FitRequest> = trails.iter().zip(&is_part).map(request).collect();
    let held: Vec<bool> = trails.iter().map(|b| b.keeps_vector).collect();
    let fits = fit_all(backend, &requests, &held, settings)?;
    let fits: Vec<LastFit> = fits.into_iter().zip(&trails).map(|(last, b)| last.or_steadier(b)).collect();
    // In structured sky faint trails lie side by side: each has to stand out from the light of the others.
    let mode = tracking::decide(tracking, &trails.iter().map(Believed::as_seen).collect::<Vec<_>>());
    let stars = match among {
        Among::All if mode == TrackingMode::Sidereal => Stars::Points,
        Among::Left(Some(stars)) => Stars::Trails(stars),
        _ => Stars::Unknown,
    };
    let stands_out = |b: &Believed| b.fit.snr >= STANDS_OUT_SNR || mode != TrackingMode::Sidereal;
    let is_out: Vec<bool> = trails.iter().zip(&is_part).map(|(b, is_part)| !is_part && stands_out(b)).collect();
    backend.add_trails(&of(&|i| !is_part[i] && !is_out[i]), 1.0)?;
    let beside: Vec<Segment> =
        fits.iter().flat_map(|f| Surroundings::tracks(&f.fit.trail.segment, sigma_eff)).collect();
    let beside = backend.profiles(&beside, sigma_eff as f32)?;
    // A brighter trail that crosses is no star on this one.
    let tracks: Vec<Segment> = fits.iter().map(|f| chains.track(&f.fit.trail.segment)).collect();
    let without_others = backend.profiles(&tracks, sigma_eff as f32)?;
    let whole = |i: usize| {
        let taken_out = is_out[i].then_some(&trails[i].fit.trail);
        Track { segment: tracks[i], profile: &without_others[i], taken_out, sigma_px: sigma_eff }.whole()
    };
    let profiles: Vec<TrackProfile> = (0..tracks.len()).into_par_iter().map(whole).collect();
    let mut gains = vec![f64::INFINITY; fits.len()];
    if mode == TrackingMode::Sidereal {
        backend.add_trails(&of(&|i| is_out[i]), 1.0)?;
        gains = gains_over_stars(backend, &fits, chains, sigma_eff)?;
        backend.add_trails(&of(&|i| !is_part[i]), -1.0)?;
    }
    // From here on all trails but parts of others are out of the residual image.
    let setting = EndSetting {
        width: frame.width(),
        height: frame.height(),
        sigma_px: sigma_eff,
        chains,
        stars,
        photon_variance: settings.photon_variance,
    };
    let ReportedFits { fits: reported, ends, flux_in_doubt } =
        reported_fits(backend, &fits, &trails, &requests, &held, &setting)?;
    let on_track: Vec<Segment> =
        reported.iter().flat_map(|f| AlongTrack::tracks(&seen_segment(&f.fit, frame), sigma_eff)).collect();
    let on_track = backend.profiles(&on_track, sigma_eff as f32)?;
    backend.add_trails(&of(&|i| !is_part[i]), 1.0)?;
    let all: Vec<TrailFit> = reported.iter().map(|last| last.fit).collect();
    let hidden_px = hidden::stretches(backend, &all, [frame.width(), frame.height()], sigma_eff)?;
    let lines: Vec<(Segment, f64, &TrackProfile)> = fits
        .iter()
        .zip(&trails)
        .zip(&profiles)
        .map(|((last, b), profile)| (seen_segment(&last.fit, frame), b.fit.snr, profile))
        .collect();
    let has_no_twin = spikes::without_twin(backend, &lines, &field.bright, sigma_eff)?;
    let (beside, on_track) = (beside.par_chunks(Surroundings::N_TRACKS), on_track.par_chunks(along::N_TRACKS));
    let seen = profiles.into_par_iter().zip(beside).zip(on_track).enumerate();
    let measured = seen.map(|(i, ((profile, beside), on_track))| {
        let believed = &trails[i];
        let LastFit { fit, settings } = &reported[i];
        let fitted = &fits[i].fit;
        let snr = believed.fit.snr;
        let taken_out = taken_out(&requests[i]);
        let along = AlongTrack {
            segment: seen_segment(fit, frame),
            trail: &fit.trail,
            taken_out: taken_out.as_ref(),
            sigma_px: sigma_eff,
            profiles: on_track,
            snr,
            photon_variance: settings.photon_variance,
        };
        let known = motion.filter(|_| believed.keeps_vector);
        let Reported { mut detection, sigma_eff_err_px, hidden_flux } =
            detection(fit, settings, frame, field, snr, known, ends[i].map(|e| e.along), hidden_px[i]);
        add_shape(&mut detection, &along, frame);
        let has_light = detection.flux > detection.flux_err;
        detection.flux_err = detection.flux_err.hypot(flux_in_doubt[i] * to_flux(frame)).hypot(hidden_flux);
        match believed.origin {
            Origin::Found => {}
            Origin::Joined => detection.flags |= Flags::JOINED,
            Origin::Parted | Origin::Star => detection.role = Role::Star,
        }
        let taken_out_snr = if is_out[i] { snr } else { 0.0 };
        Measured {
            detection,
            fitted: seen_segment(fitted, frame),
            sigma_eff_px: fitted.trail.sigma_eff_px,
            sigma_eff_err_px,
            profile,
            trail: if believed.origin == Origin::Star { believed.fit.trail } else { fitted.trail },
            is_known_star: believed.origin == Origin::Star,
            is_part_of_wings: believed.is_part_of_wings,
            has_light,
            misfit: fitted.misfit(settings),
            surroundings: Surroundings::from_profiles(beside, taken_out_snr, chains.noise_excess()),
            gain_over_stars: gains[i],
            has_no_twin: has_no_twin[i],
            gain_over_star_trails: believed.gain_over_star_trails,
        }
    });
    Ok(measured.collect())
}

/// Fits all requests; those that are held stay where they are. A width that its pixels contradict has no prior.
fn fit_all(
    backend: &mut dyn Backend,
    requests: &[FitRequest],
    held: &[bool],
    settings: FitSettings,
) -> Result<Vec<LastFit>> {
    let which = |held_too: bool| held.iter().zip(requests).filter(move |(h, _)| **h == held_too).map(|(_, r)| *r);
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
    Ok(fits)
}

/// How much more than a few stars each trail explains, in S/N²; where a trail is too long for a few stars, no end of
/// it. The trails are in the residual image.
fn gains_over_stars(
    backend: &mut dyn Backend,
    fits: &[LastFit],
    chains: &ChainPrior,
    sigma_eff: f64,
) -> Result<Vec<f64>> {
    let mut gains = vec![f64::INFINITY; fits.len()];
    for doubles in &DOUBLES {
        let could_be = |fit: &TrailFit| {
            let [least, most] = doubles.snr;
            (least..most).contains(&fit.snr) && fit.trail.segment.length_px() < doubles.longest_sigmas * sigma_eff
        };
        let some: Vec<usize> = (0..fits.len()).filter(|&i| could_be(&fits[i].fit)).collect();
        let trails: Vec<Trail> = some.iter().map(|&i| fits[i].fit.trail).collect();
        let of_some = doubles::gains_over_stars(backend, &trails, doubles, sigma_eff, chains)?;
        for (i, gain) in some.into_iter().zip(of_some) {
            gains[i] = gain;
        }
    }
    Ok(gains)
}

/// Units of flux in one of a frame's values.
fn to_flux(frame: &Frame<'_>) -> f64 {
    frame.gain_e_per_adu().unwrap_or(1.0)
}

fn add_shape(detection: &mut Detection, along: &AlongTrack<'_>, frame: &Frame<'_>) {
    let to_flux = to_flux(frame);
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
pub(crate) struct LastFit {
    pub(crate) fit: TrailFit,
    pub(crate) settings: FitSettings,
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

    /// It did not wander off.
    pub(crate) fn is_sane(&self, believed: &Believed) -> bool {
        let (a, b) = (&self.fit.trail.segment, &believed.fit.trail.segment);
        let overlaps = a.distance_to(b.midpoint()) < 2.0 * believed.fit.trail.sigma_eff_px;
        self.is_lit() && overlaps
    }

    pub(crate) fn is_lit(&self) -> bool {
        self.fit.trail.flux > 0.0 && self.fit.errors_with(&self.settings, [false; 2]).is_some()
    }

    /// Where it wandered off, the fit it started from, which held the background and had no prior.
    fn or_steadier(self, believed: &Believed) -> Self {
        let without_prior = FitSettings { sigma_prior: None, ..self.settings };
        if self.is_sane(believed) {
            self
        } else {
            Self { fit: believed.fit.without_background(), settings: without_prior }
        }
    }
}

/// A detection as far as the decision on the tracking needs it.
pub(crate) fn as_seen(d: &Detection) -> Seen {
    let cut = Flags::END1_OFF_FRAME | Flags::END2_OFF_FRAME | Flags::END1_MASKED | Flags::END2_MASKED;
    Seen {
        segment: d.segment,
        snr: d.snr,
        length_68_px: d.along_68_px.length_px,
        whole: !d.flags.intersects(cut),
        wide: d.flags.intersects(Flags::WIDE | Flags::CURVED),
    }
}
