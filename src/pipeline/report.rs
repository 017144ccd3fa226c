//! From measured trails to the report: roles, reasons, order.

use std::time::Instant;

use crate::backend::Backend;
use crate::detection::{Detection, Flags, Role};
use crate::detector::DetectorConfig;
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::chain::ChainPrior;
use crate::pipeline::judge::{Evidence, KnownTrail, Scene, judge};
use crate::pipeline::last_fits::{self, Measured};
use crate::pipeline::measure::Trail;
use crate::pipeline::points::Points;
use crate::pipeline::psf::effective_sigma;
use crate::pipeline::stars::StarField;
use crate::pipeline::threshold::Thresholds;
use crate::pipeline::tracking::{self, Seen, Tracking};
use crate::pipeline::uneven::UnevenSky;
use crate::pipeline::{bundles, extended, galaxies};
use crate::report::{FrameFlag, PsfSource, RejectReason, Rejected, Report, TrackingMode};

/// How the trails of a frame say that the telescope moved.
pub(crate) fn tracking_of(tracking: Tracking, measured: &[Measured]) -> TrackingMode {
    let seen: Vec<Seen> = measured.iter().map(|m| last_fits::as_seen(&m.detection)).collect();
    tracking::decide(tracking, &seen)
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
    uneven: UnevenSky,
    pub(crate) tracking: TrackingMode,
    detections: Vec<Detection>,
    rejected: Vec<Rejected>,
    /// What is taken out of the residual image before points are looked for.
    pub(crate) trails: Vec<Trail>,
}

/// Spilled charge as it is listed.
fn spilled<'a>(field: &'a StarField, config: &'a DetectorConfig) -> impl Iterator<Item = Rejected> + 'a {
    let is_long = |(segment, _): &&(Segment, f64)| segment.length_px() >= config.search.min_length_px;
    let listed = |&(segment, snr): &(Segment, f64)| Rejected { segment, snr, reason: RejectReason::BleedColumn };
    field.bleeds.iter().filter(is_long).map(listed)
}

impl<'a> Findings<'a> {
    pub(crate) fn new(
        frame: &'a Frame<'a>,
        field: &'a StarField,
        config: &'a DetectorConfig,
        thresholds: Thresholds,
        chains: ChainPrior,
        longest_px: f64,
        uneven: UnevenSky,
    ) -> Self {
        Self {
            frame,
            field,
            config,
            thresholds,
            chains,
            longest_px,
            uneven,
            tracking: TrackingMode::Sidereal,
            detections: Vec::new(),
            rejected: spilled(field, config).collect(),
            trails: Vec::new(),
        }
    }

    /// Why each of the trails is not believed. Stars that were found with the common vector need no judge.
    pub(crate) fn verdicts(&self, measured: &[Measured]) -> Vec<Option<RejectReason>> {
        let trails: Vec<KnownTrail> = measured.iter().map(Measured::as_known).collect();
        let scene = Scene {
            width: self.frame.width(),
            height: self.frame.height(),
            psf_sigma_eff_px: effective_sigma(self.field.psf_sigma_px),
            min_length_px: self.config.search.min_length_px,
            chains: self.chains,
            noise_excess: self.thresholds.noise_excess,
            stars: &self.field.bright,
            trails: &trails,
            uneven: &self.uneven,
        };
        let of_star = |m: &Measured| {
            let is_outside = m.detection.segment.clipped_to(scene.width, scene.height).is_none();
            if m.is_part_of_wings {
                Some(RejectReason::StarResidual)
            } else if !m.has_light {
                Some(RejectReason::PoorFit)
            } else {
                is_outside.then_some(RejectReason::FrameEdge)
            }
        };
        let of_line = |m: &Measured| {
            let evidence = Evidence {
                segment: m.fitted,
                length_68_px: m.detection.along_68_px.length_px,
                sigma_eff_px: m.sigma_eff_px,
                sigma_eff_err_px: m.sigma_eff_err_px,
                snr: m.detection.snr,
                threshold_snr: self.thresholds.for_length(m.fitted.length_px()),
                has_light: m.has_light,
                misfit: m.misfit,
                surroundings: m.surroundings,
                profile: &m.profile,
                gain_over_stars: m.gain_over_stars,
                has_no_twin: m.has_no_twin,
            };
            judge(&evidence, &scene, &self.config.judge)
        };
        measured.iter().map(|m| if m.is_known_star { of_star(m) } else { of_line(m) }).collect()
    }

    /// Of the trails that are believed so far, those that are galaxies are `extended`. All are in the residual image.
    pub(crate) fn find_galaxies(
        &self,
        backend: &mut dyn Backend,
        measured: &[Measured],
        verdicts: &mut [Option<RejectReason>],
    ) -> crate::Result<()> {
        if self.field.psf_source == PsfSource::Assumed {
            return Ok(());
        }
        let line = |(m, verdict): (&Measured, &Option<RejectReason>)| galaxies::Line {
            trail: m.trail,
            sigma_eff_px: m.sigma_eff_px,
            is_believed: verdict.is_none(),
            may_be_part: matches!(verdict, Some(RejectReason::PoorFit | RejectReason::Extended)),
        };
        let lines: Vec<galaxies::Line> = measured.iter().zip(&*verdicts).map(line).collect();
        let search = galaxies::Search {
            frame: self.frame,
            psf_sigma_eff_px: effective_sigma(self.field.psf_sigma_px),
            threshold_snr: self.thresholds.lowest(),
        };
        for i in search.among(backend, &lines)? {
            verdicts[i] = Some(RejectReason::Extended);
        }
        Ok(())
    }

    /// Sorts trails into stars, targets and rejected ones, and decides how the telescope moved.
    ///
    /// Stars that were found with the common vector of `mode` are reported from `least_star_snr` on.
    pub(crate) fn sort(
        &mut self,
        measured: Vec<Measured>,
        verdicts: Vec<Option<RejectReason>>,
        mode: Option<TrackingMode>,
        least_star_snr: f64,
    ) {
        for (m, verdict) in measured.into_iter().zip(verdicts) {
            // A short one that is no streak may be a point.
            let may_be_point = !m.is_known_star
                && verdict == Some(RejectReason::StarResidual)
                && m.detection.length_px() <= POINT_WIDTHS * m.sigma_eff_px;
            if !may_be_point {
                self.trails.push(m.trail);
            }
            let Detection { segment, snr, .. } = m.detection;
            match verdict {
                Some(reason) => self.rejected.push(Rejected { segment, snr, reason }),
                None if m.is_known_star && snr < least_star_snr => {}
                None => self.detections.push(m.detection),
            }
        }
        self.reject_bundles();
        self.reject_extended();
        let seen: Vec<Seen> = self.detections.iter().map(last_fits::as_seen).collect();
        self.tracking = mode.unwrap_or_else(|| tracking::decide(self.config.tracking, &seen));
        for (detection, seen) in self.detections.iter_mut().zip(&seen) {
            if self.tracking == TrackingMode::Sidereal {
                detection.role = Role::Target;
            } else if tracking::is_star(&self.tracking, seen) {
                detection.role = Role::Star;
            }
        }
    }

    /// Targets that the sky's structure drew.
    fn reject_bundles(&mut self) {
        let line = |d: &Detection| bundles::Line { segment: d.segment, angle_err_rad: d.angle_err_rad(), snr: d.snr };
        let are_bundled = |targets: &[Detection]| bundles::are_bundled(&targets.iter().map(line).collect::<Vec<_>>());
        self.reject_targets(RejectReason::UnevenSky, are_bundled);
    }

    /// Targets that are parts of what makes lines in other directions as well.
    fn reject_extended(&mut self) {
        let is_poor = |r: &&Rejected| matches!(r.reason, RejectReason::PoorFit | RejectReason::Extended);
        let mut poor: Vec<(Segment, f64)> = self.rejected.iter().filter(is_poor).map(|r| (r.segment, r.snr)).collect();
        self.reject_targets(RejectReason::Extended, |targets| {
            let doubtful = targets.iter().filter(|d| d.flags.contains(Flags::POOR_FIT));
            poor.extend(doubtful.map(|d| (d.segment, d.snr)));
            targets.iter().map(|d| extended::is_part(&d.segment, d.snr, &poor)).collect()
        });
    }

    /// Rejects some of the targets, which are told together.
    fn reject_targets(&mut self, reason: RejectReason, which: impl FnOnce(&[Detection]) -> Vec<bool>) {
        let (targets, stars): (Vec<Detection>, Vec<Detection>) =
            std::mem::take(&mut self.detections).into_iter().partition(|d| d.role == Role::Target);
        self.detections = stars;
        let are_rejected = which(&targets);
        for (d, is_rejected) in targets.into_iter().zip(are_rejected) {
            if is_rejected {
                self.rejected.push(Rejected { segment: d.segment, snr: d.snr, reason });
            } else {
                self.detections.push(d);
            }
        }
    }

    /// Charge that had spilled in the first look, but for that of stars which are known otherwise.
    pub(crate) fn add_spilled(&mut self, before: &StarField, is_known: impl Fn(&Segment) -> bool) {
        self.rejected.extend(spilled(before, self.config).filter(|r| !is_known(&r.segment)));
    }

    /// What was measured by the sums of its light: a detection, or why it is none.
    pub(crate) fn add_summed(&mut self, summed: Result<Detection, Rejected>) {
        match summed {
            Ok(detection) => self.detections.push(detection),
            Err(rejected) => self.rejected.push(rejected),
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
            points_threshold_snr: None,
            detections: self.detections,
            rejected: self.rejected,
            flags,
            stages_ms,
            operations_ms: Vec::new(),
            kernels_ms: Vec::new(),
            total_ms: begin.elapsed().as_secs_f64() * 1e3,
        }
    }
}
