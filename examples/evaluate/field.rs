//! One star field of the benchmark: made, searched, and compared with the truth.

use skystreak::simulate::{Brightness, SceneConfig, StreakSpec, simulate};
use skystreak::{Detector, Role};

use crate::AnyResult;
use crate::matching;
use crate::scenes::{Placement, frame_seed, place_generator};

/// What the fields look like; all else as in the simulator's default: saturated stars with spilled charge, hot pixels,
/// particle hits, a sloping and vignetted sky.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) size: usize,
    pub(crate) psf_sigma_px: f64,
    /// Stars of S/N 3 and more on a million pixels.
    pub(crate) stars_per_mpix: f64,
}

/// What one field gave.
pub(crate) struct FieldOutcome {
    /// S/N of every streak, and whether it was found.
    pub(crate) streaks: Vec<(f64, bool)>,
    /// S/N of the detections that belong to no streak.
    pub(crate) false_detections: Vec<f64>,
}

/// Makes one field with `n` streaks of a length, of S/N from a list in turn, and searches it.
pub(crate) fn search_field(
    detector: &Detector,
    field: &Field,
    placement: &Placement,
    snrs: &[f64],
    seed: u64,
    frame: usize,
) -> AnyResult<FieldOutcome> {
    let seed = frame_seed(seed, frame);
    let places = placement.draw(field.size, &mut place_generator(seed))?;
    let snr_of = |i: usize| snrs[(frame * placement.n + i) % snrs.len()];
    let scene = simulate(&SceneConfig {
        width: field.size,
        height: field.size,
        seed,
        psf_sigma_px: field.psf_sigma_px,
        stars_per_mpix: field.stars_per_mpix,
        streaks: places
            .iter()
            .enumerate()
            .map(|(i, segment)| StreakSpec { segment: *segment, brightness: Brightness::Snr(snr_of(i)) })
            .collect(),
        ..SceneConfig::default()
    })?;
    let report = detector.detect(&scene.frame)?;
    let targets: Vec<_> = report.detections.iter().filter(|d| d.role == Role::Target).collect();
    let belongs = |found, truth| matching::belongs(found, truth, field.psf_sigma_px);
    Ok(FieldOutcome {
        streaks: places
            .iter()
            .enumerate()
            .map(|(i, truth)| (snr_of(i), targets.iter().any(|d| belongs(&d.segment, truth))))
            .collect(),
        false_detections: targets
            .iter()
            .filter(|d| !places.iter().any(|truth| belongs(&d.segment, truth)))
            .map(|d| d.snr)
            .collect(),
    })
}
