//! One frame of the benchmark: made, searched, and compared with the truth.

use skystreak::{Detection, Detector, RejectReason, Rejected, Report, Segment};

use crate::AnyResult;
use crate::matching;
use crate::scenes::{Conditions, Placement, frame_seed, make, place_generator};

/// What became of one streak.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    pub(crate) snr: f64,
    /// Found by the blind search.
    pub(crate) blind: bool,
    /// Found when the fits start at the truth.
    pub(crate) from_truth: bool,
    /// The blind search found it in several pieces.
    pub(crate) broken: bool,
    /// The blind search found it, and it was rejected by its looks.
    pub(crate) rejected: Option<RejectReason>,
}

/// What one frame gave.
pub(crate) struct Outcome {
    pub(crate) trials: Vec<Trial>,
    /// Detections of the blind search that belong to no streak.
    pub(crate) false_alarms: usize,
    /// Those of them that run into a streak: its light at a wrong angle, or mostly beside its length.
    pub(crate) touching: usize,
}

/// Makes one frame with streaks of S/N from a list, in turn, and looks for them blindly and at the true places.
pub(crate) fn search_frame(
    detector: &Detector,
    conditions: &Conditions,
    placement: &Placement,
    snrs: &[f64],
    seed: u64,
    frame: usize,
) -> AnyResult<Outcome> {
    let frame_seed = frame_seed(seed, frame);
    let places = placement.draw(conditions.size, &mut place_generator(frame_seed))?;
    let wanted: Vec<(Segment, f64)> =
        places.iter().enumerate().map(|(i, place)| (*place, snrs[(frame * placement.n + i) % snrs.len()])).collect();
    let made = make(conditions, &wanted, frame_seed)?;
    let truths: Vec<Segment> = made.truths.iter().map(|t| t.segment).collect();
    let matched = |found: &[Detection]| matching::assign(&truths, found, conditions.psf_sigma_px);
    let Report { detections, rejected, .. } = detector.detect(&made.frame)?;
    let reason_at = |truth: &Segment| {
        let at_truth = |r: &&Rejected| matching::belongs(&r.segment, truth, conditions.psf_sigma_px);
        rejected.iter().find(at_truth).map(|r| r.reason)
    };
    let blind = matched(&detections);
    let from_truth = matched(&detector.detect_at(&made.frame, &truths)?.detections);
    let trials = made.truths.iter().enumerate().map(|(i, truth)| Trial {
        snr: truth.snr,
        blind: blind.of_truth[i].is_some(),
        from_truth: from_truth.of_truth[i].is_some(),
        broken: blind.n_of_truth[i] > 1,
        rejected: reason_at(&truth.segment).filter(|_| blind.of_truth[i].is_none()),
    });
    let touches = |j: &&usize| {
        truths.iter().any(|truth| matching::touches(&detections[**j].segment, truth, conditions.psf_sigma_px))
    };
    Ok(Outcome {
        trials: trials.collect(),
        false_alarms: blind.false_alarms.len(),
        touching: blind.false_alarms.iter().filter(touches).count(),
    })
}

/// A detection in a frame of noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FalseAlarm {
    pub(crate) snr: f64,
    pub(crate) length_px: f64,
}

/// Searches one frame of noise alone: what is found, and how many more were rejected by their looks.
pub(crate) fn find_nothing(
    detector: &Detector,
    conditions: &Conditions,
    seed: u64,
    frame: usize,
) -> AnyResult<(Vec<FalseAlarm>, usize)> {
    let made = make(conditions, &[], frame_seed(seed, frame))?;
    let report = detector.detect(&made.frame)?;
    let found = report.detections.iter().map(|d| FalseAlarm { snr: d.snr, length_px: d.length_px() });
    Ok((found.collect(), report.rejected.len()))
}
