//! Lines that point at a bright star: spikes come in pairs, streaks do not.
#![expect(unreachable_pub, reason = "the helper module is part of this program")]
#![expect(dead_code, reason = "other programs use more of the helper module")]

#[path = "support/tracks.rs"]
mod tracks;

use skystreak::simulate::{Brightness, SceneConfig, StarSpec, StreakSpec, simulate};
use skystreak::{Detector, DetectorConfig, Device, Point, RejectReason, Report, Segment};
use tracks::on_track;

const STAR: Point = Point::new(230.3, 190.8);

/// Begins some way beside the star, and points at it.
fn line(seed: u64) -> Segment {
    let (s, c) = (0.4 + 0.3 * seed as f64).sin_cos();
    let at = |px: f64| Point::new(STAR.x + px * c, STAR.y + px * s);
    Segment::new(at(18.0), at(46.0))
}

/// What is found where a line of S/N 25 points at a star of S/N 1500, with another line on its other side or not.
fn report(seed: u64, with_twin: bool) -> Report {
    let line = line(seed);
    let mirrored = |p: Point| Point::new(2.0 * STAR.x - p.x, 2.0 * STAR.y - p.y);
    let streak = |segment: Segment| StreakSpec { segment, brightness: Brightness::Snr(25.0) };
    let mut streaks = vec![streak(line)];
    if with_twin {
        streaks.push(streak(Segment::new(mirrored(line.start), mirrored(line.end))));
    }
    let scene = SceneConfig { width: 448, height: 400, seed, stars_per_mpix: 300.0, ..SceneConfig::default() };
    let unit_snr_e = scene.noise_e() * 2.0 * std::f64::consts::PI.sqrt() * scene.psf_sigma_px;
    let star = StarSpec { x: STAR.x, y: STAR.y, flux_e: 1500.0 * unit_snr_e };
    let made = simulate(&SceneConfig { stars: vec![star], streaks, ..scene }).unwrap();
    let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() }).unwrap();
    detector.detect(&made.frame).unwrap()
}

fn is_called_spike(report: &Report, line: &Segment) -> bool {
    let is_it = |segment: &Segment| line.distance_to(segment.midpoint()) < 3.0;
    report.rejected.iter().any(|r| r.reason == RejectReason::DiffractionSpike && is_it(&r.segment))
}

#[test]
fn a_spike_has_a_twin_and_a_streak_has_none() {
    for seed in 1..=8 {
        let line = line(seed);
        let (alone, pair) = (report(seed, false), report(seed, true));
        assert_eq!(on_track(&alone, &line).len(), 1, "seed {seed}: {:?}", alone.rejected);
        assert!(is_called_spike(&pair, &line), "seed {seed}: {:?} {:?}", pair.detections, pair.rejected);
    }
}
