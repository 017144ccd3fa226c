//! What all benches share: frames with known streaks, detectors, sizes.
#![allow(dead_code, reason = "no bench uses everything")]

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use skystreak::simulate::{Brightness, SceneConfig, StreakSpec, simulate};
use skystreak::{Detector, DetectorConfig, Device, Frame, Report, Segment, devices};

/// Sides of the frames, px: `SKYSTREAK_BENCH_SIDES=1024,2048,4096,8192` for all of them, 1024 and 2048 when not given.
pub(crate) fn sides() -> Vec<usize> {
    let given = std::env::var("SKYSTREAK_BENCH_SIDES").unwrap_or_else(|_| "1024,2048".into());
    given.split(',').map(|side| side.trim().parse().expect("SKYSTREAK_BENCH_SIDES is a list of numbers")).collect()
}

/// The CPU, and the GPU where there is one; a software driver where `SKYSTREAK_BENCH_SOFTWARE` is set.
pub(crate) fn detectors() -> Vec<(&'static str, Detector)> {
    let open = |device| Detector::new(DetectorConfig { device, ..DetectorConfig::default() }).unwrap();
    let software_too = std::env::var_os("SKYSTREAK_BENCH_SOFTWARE").is_some();
    let has_gpu = devices().iter().skip(1).any(|d| software_too || !d.is_software);
    let gpu = has_gpu.then(|| ("gpu", open(Device::Gpu)));
    std::iter::once(("cpu", open(Device::Cpu))).chain(gpu).collect()
}

/// The streak of every bench frame.
pub(crate) fn streak() -> Segment {
    Segment::from_coordinates(310.3, 420.6, 620.1, 560.4)
}

/// A field of so many stars per million pixels, with one streak of S/N 40.
pub(crate) fn star_field(side: usize, stars_per_mpix: f64) -> Frame<'static> {
    let streaks = vec![StreakSpec { segment: streak(), brightness: Brightness::Snr(40.0) }];
    simulate(&SceneConfig { width: side, height: side, stars_per_mpix, streaks, ..SceneConfig::default() })
        .unwrap()
        .frame
}

/// Holds that the streak is found once, in its place: to a twentieth of its length, where a star may hide an end.
pub(crate) fn assert_found(report: &Report) {
    let tolerance = 0.05 * streak().length_px();
    let hits = report.detections.iter().filter(|d| d.midpoint().distance(streak().midpoint()) < tolerance).count();
    assert_eq!(hits, 1, "the streak is not found: {:?}", report.detections);
}

/// Times operations on the pixels as they happen in a detection: the sum of the report's times of these names.
pub(crate) fn bench_operations(c: &mut Criterion, name: &str, operations: &[&str]) {
    let mut group = group(c, name);
    let time_of = |report: &Report| -> f64 {
        assert_found(report);
        let wanted = report.operations_ms.iter().filter(|(operation, _)| operations.contains(operation));
        wanted.map(|(_, ms)| ms).sum()
    };
    for side in sides() {
        let frame = star_field(side, SceneConfig::default().stars_per_mpix);
        group.throughput(Throughput::Elements((side * side) as u64));
        for (device, detector) in detectors() {
            detector.detect(&frame).unwrap();
            group.bench_function(BenchmarkId::new(device, side), |b| {
                b.iter_custom(|n| {
                    let ms: f64 = (0..n).map(|_| time_of(&detector.detect(black_box(&frame)).unwrap())).sum();
                    Duration::from_secs_f64(ms * 1e-3)
                });
            });
        }
    }
    group.finish();
}

/// A group whose runs take seconds: as few as criterion allows.
pub(crate) fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    group
}
