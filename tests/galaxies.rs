//! Galaxies of any shape are no streaks, and one that a streak crosses does not hide it.

use skystreak::simulate::{add_streak, gaussian_frame, unit_stamp};
use skystreak::{Detector, DetectorConfig, Device, Frame, RejectReason, Segment};

const SIDE: usize = 700;
const NOISE: f64 = 10.0;
const SIGMA: f64 = 1.5;

/// A disk of S/N `snr`, seen at an angle: three Gaussians fall off nearly as the exponential of a scale length.
struct Galaxy {
    scale_px: f64,
    axis_ratio: f64,
    angle_deg: f64,
    snr: f64,
}

impl Galaxy {
    /// Light per pixel for one unit in all.
    fn light(&self, dx: f64, dy: f64) -> f64 {
        let (s, c) = self.angle_deg.to_radians().sin_cos();
        let (u, v) = (dx * c + dy * s, dy * c - dx * s);
        let parts = [(0.12, 0.35), (0.43, 0.95), (0.45, 1.75)];
        parts
            .iter()
            .map(|(flux, scales)| {
                let a = (scales * self.scale_px).hypot(SIGMA);
                let b = (scales * self.scale_px * self.axis_ratio).hypot(SIGMA);
                flux * (-0.5 * ((u / a).powi(2) + (v / b).powi(2))).exp() / (std::f64::consts::TAU * a * b)
            })
            .sum()
    }

    fn add(&self, pixels: &mut [f32], x: f64, y: f64) {
        let at = |i: usize| self.light((i % SIDE) as f64 - x, (i / SIDE) as f64 - y);
        let norm = (0..pixels.len()).map(|i| at(i).powi(2)).sum::<f64>().sqrt();
        let flux = self.snr * NOISE / norm;
        pixels.iter_mut().enumerate().for_each(|(i, p)| *p += (flux * at(i)) as f32);
    }
}

#[test]
fn galaxies_are_no_streaks() {
    let galaxy = |scale_px, axis_ratio, angle_deg, snr| Galaxy { scale_px, axis_ratio, angle_deg, snr };
    let galaxies = [
        galaxy(3.0, 0.45, 17.0, 150.0),
        galaxy(4.0, 0.25, 60.0, 80.0),
        galaxy(4.0, 0.9, 0.0, 50.0),
        galaxy(6.0, 0.3, 130.0, 100.0),
        galaxy(6.0, 0.7, 17.0, 60.0),
        galaxy(7.0, 0.2, 85.0, 150.0),
        galaxy(8.0, 0.4, 40.0, 120.0),
        galaxy(8.0, 0.95, 0.0, 140.0),
        galaxy(10.0, 0.6, 100.0, 80.0),
    ];
    let mut pixels = gaussian_frame(SIDE, SIDE, 5, NOISE as f32);
    for (k, galaxy) in galaxies.iter().enumerate() {
        galaxy.add(&mut pixels, 120.3 + 220.0 * (k % 3) as f64, 120.8 + 220.0 * (k / 3) as f64);
    }
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
