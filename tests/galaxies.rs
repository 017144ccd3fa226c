//! Galaxies of any shape are no streaks, and one that a streak crosses does not hide it.

#[path = "../examples/evaluate/disk.rs"]
mod disk;

use disk::Disk;
use skystreak::simulate::{add_streak, gaussian_frame, unit_stamp};
use skystreak::{Detector, DetectorConfig, Device, Frame, RejectReason, Segment};

const SIDE: usize = 700;
const NOISE: f64 = 10.0;
const SIGMA: f64 = 1.5;

#[test]
fn galaxies_are_no_streaks() {
    let galaxies: [(f64, f64, f64, f64); 9] = [
        (3.0, 0.45, 17.0, 150.0),
        (4.0, 0.25, 60.0, 80.0),
        (4.0, 0.9, 0.0, 50.0),
        (6.0, 0.3, 130.0, 100.0),
        (6.0, 0.7, 17.0, 60.0),
        (7.0, 0.2, 85.0, 150.0),
        (8.0, 0.4, 40.0, 120.0),
        (8.0, 0.95, 0.0, 140.0),
        (10.0, 0.6, 100.0, 80.0),
    ];
    let mut light = vec![0.0; SIDE * SIDE];
    for (k, (scale_px, axis_ratio, angle_deg, snr)) in galaxies.into_iter().enumerate() {
        let (x, y) = (120.3 + 220.0 * (k % 3) as f64, 120.8 + 220.0 * (k / 3) as f64);
        Disk { x, y, scale_px, axis_ratio, angle_rad: angle_deg.to_radians(), snr }.add(&mut light, SIDE, SIGMA);
    }
    let noise = gaussian_frame(SIDE, SIDE, 5, NOISE as f32);
    let mut pixels: Vec<f32> = noise.iter().zip(&light).map(|(n, l)| n + (NOISE * l) as f32).collect();
    // Through the middle of the fifth.
    let streak = Segment::from_coordinates(250.0, 420.3, 450.0, 250.7);
    let flux = 40.0 * NOISE / unit_stamp(&streak, SIGMA, SIDE, SIDE).norm();
    add_streak(&mut pixels, SIDE, &streak, SIGMA, flux);
    let raw: Vec<u16> = pixels.iter().map(|v| (v + 500.0).round().clamp(0.0, 60_000.0) as u16).collect();
    let config = DetectorConfig {
        device: Device::Cpu,
        psf_sigma_px: Some(SIGMA),
        false_alarms_per_frame: 1e-4,
        ..Default::default()
    };
    let report = Detector::new(config).unwrap().detect(&Frame::new(raw, SIDE, SIDE).unwrap()).unwrap();
    let [found] = &report.detections[..] else { panic!("{:?}", report.detections) };
    // Where it is, to 10 px of its 262.
    for end in [streak.start, streak.end] {
        let off_px = [found.segment.start, found.segment.end].map(|p| p.distance(end));
        assert!(off_px[0].min(off_px[1]) < 10.0, "{found:?}");
    }
    assert!(report.rejected.iter().any(|r| r.reason == RejectReason::Extended), "{:?}", report.rejected);
}
