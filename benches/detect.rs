//! From raw pixels to the report, on the CPU: a field of stars with one streak.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skystreak::simulate::{Brightness, SceneConfig, StreakSpec, simulate};
use skystreak::{Detector, DetectorConfig, Device, Segment};

fn end_to_end(c: &mut Criterion) {
    let mut group = c.benchmark_group("detect");
    group.sample_size(10);
    let detector = Detector::new(DetectorConfig { device: Device::Cpu, ..DetectorConfig::default() }).unwrap();
    for side in [1024, 2048] {
        let segment = Segment::from_coordinates(310.3, 420.6, 620.1, 560.4);
        let streaks = vec![StreakSpec { segment, brightness: Brightness::Snr(40.0) }];
        let config = SceneConfig { width: side, height: side, streaks, ..SceneConfig::default() };
        let frame = simulate(&config).unwrap().frame;

        let found = detector.detect(&frame).unwrap().detections;
        let hits = found.iter().filter(|d| d.midpoint().distance(segment.midpoint()) < 10.0).count();
        assert_eq!(hits, 1, "the streak is not found: {found:?}");

        group.throughput(Throughput::Elements((side * side) as u64));
        group.bench_function(BenchmarkId::new("cpu", side), |b| {
            b.iter(|| detector.detect(black_box(&frame)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
