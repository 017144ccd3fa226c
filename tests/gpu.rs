//! The GPU finds what the CPU finds.
//!
//! Any adapter will do, software included. With none the tests say that they skip; `REQUIRE_GPU=1` makes that a failure.
#![cfg(all(feature = "gpu", feature = "fits"))]

use std::path::Path;

use skystreak::io::fits::read_frame;
use skystreak::{Detection, Detector, DetectorConfig, Device};

fn detector(device: Device) -> skystreak::Result<Detector> {
    Detector::new(DetectorConfig { device, ..DetectorConfig::default() })
}

/// None, with a message, where there is no adapter.
fn gpu() -> Option<Detector> {
    match detector(Device::Gpu) {
        Ok(detector) => Some(detector),
        Err(error) if std::env::var_os("REQUIRE_GPU").is_some_and(|v| v == "1") => panic!("{error}"),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// The coordinates of both ends with their standard errors, px.
fn ends(d: &Detection) -> [(f64, f64); 4] {
    let (a, b) = (d.segment.start, d.segment.end);
    let mut coordinates = [(a.x, 0.0), (a.y, 0.0), (b.x, 0.0), (b.y, 0.0)];
    coordinates.iter_mut().enumerate().for_each(|(i, c)| c.1 = d.covariance_px2[i][i].max(0.0).sqrt());
    coordinates
}

/// Below this S/N the fit of a faint end, or of a pair of stars, may settle in one of two places by rounding alone: of
/// these only the number is compared.
const FAINT_SNR: f64 = 10.0;

/// Rounding may differ, the order of equal ones too, and nothing else.
fn agree(a: &Detection, b: &Detection) -> bool {
    let close = |((a, error), (b, _)): ((f64, f64), (f64, f64))| (a - b).abs() <= f64::max(0.05, 0.02 * error);
    let light = |d: &Detection| -> Vec<(f64, f64)> {
        let curve = &d.light_curve;
        let bins = curve.flux_per_px.iter().copied().zip(curve.flux_per_px_err.iter().copied());
        bins.chain([(d.flux, d.flux_err)]).collect()
    };
    let as_bright =
        |((a, error), (b, _)): ((f64, f64), (f64, f64))| !error.is_finite() || (a - b).abs() <= 0.05 * error;
    (a.kind, a.role, a.flags) == (b.kind, b.role, b.flags)
        && ends(a).into_iter().zip(ends(b)).all(close)
        && a.light_curve.flux_per_px.len() == b.light_curve.flux_per_px.len()
        && light(a).into_iter().zip(light(b)).all(as_bright)
}

#[test]
fn gpu_and_cpu_agree() {
    let Some(gpu) = gpu() else { return };
    let cpu = detector(Device::Cpu).unwrap();
    assert_ne!(gpu.device_name(), cpu.device_name());
    for name in ["sidereal_blank", "sidereal_stars", "rate_trails", "crossing"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/{name}.fits"));
        let frame = read_frame(&path).unwrap();
        let [there, here] = [&gpu, &cpu].map(|detector| detector.detect(&frame).unwrap());
        assert_eq!(there.device, gpu.device_name());
        assert_eq!((there.tracking.name(), &there.flags), (here.tracking.name(), &here.flags), "{name}");
        assert_eq!(there.detections.len(), here.detections.len(), "{name}: {there:?}\n{here:?}");
        for d in here.detections.iter().filter(|d| d.snr >= FAINT_SNR) {
            let n = there.detections.iter().filter(|other| agree(d, other)).count();
            assert_eq!(n, 1, "{name}: {d:?}\n{:?}", there.detections);
        }
    }
}

#[test]
fn the_comparison_sees_a_shifted_end() {
    let cpu = detector(Device::Cpu).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/crossing.fits");
    let report = cpu.detect(&read_frame(&path).unwrap()).unwrap();
    for d in report.detections.iter().filter(|d| d.snr >= FAINT_SNR) {
        assert!(agree(d, d));
        let mut shifted = d.clone();
        shifted.segment.end.x += f64::max(0.06, 0.03 * ends(d)[2].1);
        assert!(!agree(d, &shifted), "{d:?}");
    }
}
