//! Among star trails: a target a little turned from them, with faint stars on it, is one streak and not a row of stars.

use skystreak::{Detector, DetectorConfig, Device, Frame, Point, Role, Segment, Tracking, simulate};

const SIDE: usize = 360;
const STAR_PX: f64 = 20.0;
const SIGMA_PX: f64 = 1.5;

/// Flux of a trail of some S/N in unit noise (docs/algorithm.md).
fn flux(snr: f64, length_px: f64) -> f64 {
    snr * (2.0 * std::f64::consts::PI.sqrt() * SIGMA_PX * length_px).sqrt()
}

/// Stars on a jittered grid, and two of S/N 8 on the target's track.
fn frame(seed: u64, star_rad: f64, target: &Segment) -> Vec<f32> {
    let mut pixels = simulate::gaussian_frame(SIDE, SIDE, seed, 1.0);
    let jitter = simulate::gaussian_frame(64, 2, seed + 1000, 6.0);
    let mut add = |segment: Segment, snr: f64| {
        simulate::add_streak(&mut pixels, SIDE, &segment, SIGMA_PX, flux(snr, segment.length_px()));
    };
    for k in 0..36 {
        let (column, row) = ((k % 6) as f64, (k / 6) as f64);
        let centre =
            Point::new(35.0 + 58.0 * column + f64::from(jitter[k]), 35.0 + 58.0 * row + f64::from(jitter[64 + k]));
        add(Segment::around(centre, STAR_PX, star_rad), 8.0 + 2.0 * k as f64);
    }
    for part in [0.2, 0.7] {
        add(Segment::around(target.at(part), STAR_PX, star_rad), 8.0);
    }
    add(*target, 26.0);
    pixels
}

#[test]
fn a_turned_target_with_stars_on_it_is_no_row_of_stars() {
    let star_rad = 17_f64.to_radians();
    let config = DetectorConfig {
        device: Device::Cpu,
        psf_sigma_px: Some(SIGMA_PX),
        tracking: Tracking::Rate { star_length_px: STAR_PX, star_angle_rad: star_rad },
        ..DetectorConfig::default()
    };
    let detector = Detector::new(config).unwrap();
    let (mut found, mut wrong) = (0, 0);
    for seed in 0..12 {
        let turn = [10.0, -10.0, 8.0][seed as usize % 3];
        let target = Segment::around(Point::new(180.0, 176.0), 90.0, star_rad + f64::to_radians(turn));
        let pixels = frame(seed, star_rad, &target);
        let report = detector.detect(&Frame::new(&pixels, SIDE, SIDE).unwrap()).unwrap();
        let targets = report.detections.iter().filter(|d| d.role == Role::Target);
        let is_it = |s: &Segment| s.distance_to(target.midpoint()) < 5.0 && (s.length_px() - 90.0).abs() < 15.0;
        for d in targets {
            if is_it(&d.segment) { found += 1 } else { wrong += 1 }
        }
    }
    // 9 are found; 4 without a fit of the trail alone, a price for rows and targets set aside for what they win over stars.
    assert!(found > 6 && wrong == 0, "{found} of 12 found, {wrong} others");
}
