//! One frame of the benchmark whose stars are trails: made, searched, and compared with the truth.

use skystreak::simulate::{RandomStreaks, SceneConfig, simulate};
use skystreak::{Detector, Kind, Point, Role, TrackingMode, track_angle_difference};

use crate::AnyResult;
use crate::matching;

/// What one frame gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// S/N of every point target, and whether a point was found within a px.
    pub(crate) points: Vec<(f64, bool)>,
    /// The same of streaks, found as [`matching::RULE`] says.
    pub(crate) streaks: Vec<(f64, bool)>,
    /// Targets reported that are none: points further than 3 px from all, streaks that belong to none.
    pub(crate) false_points: usize,
    pub(crate) false_streaks: usize,
    /// Error of the star vector, px and rad; none where the frame was taken for a sidereal one.
    pub(crate) vector: Option<(f64, f64)>,
}

/// A frame with trailed stars, `n` points and `n` streaks of S/N 8 to 30.
pub(crate) fn scene(size: usize, sigma: f64, trail: (f64, f64), stars: f64, n: usize, seed: u64) -> SceneConfig {
    let streaks = RandomStreaks { n, snr: [8.0, 30.0], length_px: [20.0, 120.0], ..RandomStreaks::default() };
    let points = RandomStreaks { length_px: [0.0, 0.0], ..streaks };
    SceneConfig {
        width: size,
        height: size,
        seed,
        psf_sigma_px: sigma,
        stars_per_mpix: stars,
        random_streaks: vec![streaks, points],
        ..SceneConfig::rate_tracked(trail.0, trail.1)
    }
}

/// Searches one such frame.
pub(crate) fn observe(detector: &Detector, config: &SceneConfig) -> AnyResult<Outcome> {
    let scene = simulate(config)?;
    let report = detector.detect(&scene.frame)?;
    let mut outcome = Outcome::default();
    let (points, streaks): (Vec<_>, Vec<_>) = scene.truth.streaks.iter().partition(|s| s.length_px == 0.0);
    let targets: Vec<_> = report.detections.iter().filter(|d| d.role == Role::Target).collect();
    let apart = |p: Point, t: &skystreak::simulate::SourceTruth| p.distance(Point::new(t.x, t.y));
    let belongs = |d: &skystreak::Detection, t: &skystreak::simulate::SourceTruth| {
        matching::belongs(&d.segment, &t.segment(), config.psf_sigma_px)
    };
    for point in &points {
        let found = targets.iter().any(|d| d.kind == Kind::Point && apart(d.midpoint(), point) <= 1.0);
        outcome.points.push((point.snr, found));
    }
    for streak in &streaks {
        outcome.streaks.push((streak.snr, targets.iter().any(|d| d.kind == Kind::Streak && belongs(d, streak))));
    }
    for d in &targets {
        let is_point = points.iter().any(|t| apart(d.midpoint(), t) <= 3.0);
        let on_streak = streaks.iter().any(|t| belongs(d, t) || t.segment().distance_to(d.midpoint()) <= 3.0);
        if !is_point && !on_streak {
            *(if d.kind == Kind::Point { &mut outcome.false_points } else { &mut outcome.false_streaks }) += 1;
        }
    }
    if let (TrackingMode::Rate { star_length_px, star_angle_rad, .. }, Some(trail)) =
        (report.tracking, config.star_trail)
    {
        let turn = track_angle_difference(star_angle_rad, trail.angle_rad);
        outcome.vector = Some(((star_length_px - trail.length_px).abs(), turn));
    }
    Ok(outcome)
}

/// Points of this S/N and more count for F1.
pub(crate) const F1_SNR: f64 = 8.0;

/// F1 of point targets.
pub(crate) fn f1(outcomes: &[Outcome]) -> f64 {
    let counted = || outcomes.iter().flat_map(|o| &o.points).filter(|p| p.0 >= F1_SNR);
    let hits = counted().filter(|p| p.1).count() as f64;
    let wrong: usize = outcomes.iter().map(|o| o.false_points).sum();
    2.0 * hits / (hits + counted().count() as f64 + wrong as f64).max(1.0)
}
