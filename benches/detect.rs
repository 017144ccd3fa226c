//! From raw pixels to the report: with size, with stars, one by one and in a stream.

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skystreak::StreamConfig;

use support::{assert_found, detectors, group, sides, star_field};

fn sizes(c: &mut Criterion) {
    let mut group = group(c, "detect");
    for side in sides() {
        let frame = star_field(side, 1200.0);
        group.throughput(Throughput::Elements((side * side) as u64));
        for (device, detector) in detectors() {
            assert_found(&detector.detect(&frame).unwrap());
            group.bench_function(BenchmarkId::new(device, side), |b| {
                b.iter(|| detector.detect(black_box(&frame)).unwrap());
            });
        }
    }
    group.finish();
}

fn stars(c: &mut Criterion) {
    let mut group = group(c, "stars per Mpix");
    let side = sides()[0];
    group.throughput(Throughput::Elements((side * side) as u64));
    for stars in [0.0, 300.0, 1200.0, 3000.0] {
        let frame = star_field(side, stars);
        for (device, detector) in detectors() {
            assert_found(&detector.detect(&frame).unwrap());
            group.bench_function(BenchmarkId::new(device, stars), |b| {
                b.iter(|| detector.detect(black_box(&frame)).unwrap());
            });
        }
    }
    group.finish();
}

fn stream(c: &mut Criterion) {
    const FRAMES: usize = 6;
    let mut group = group(c, "stream");
    let side = sides()[0];
    let frame = star_field(side, 1200.0);
    group.throughput(Throughput::Elements((FRAMES * side * side) as u64));
    for (device, detector) in detectors() {
        assert_found(&detector.detect(&frame).unwrap());
        group.bench_function(BenchmarkId::new(device, "one by one"), |b| {
            b.iter(|| (0..FRAMES).for_each(|_| assert_found(&detector.detect(black_box(&frame)).unwrap())));
        });
        group.bench_function(BenchmarkId::new(device, "stream"), |b| {
            b.iter(|| {
                let frames = std::iter::repeat_n(&frame, FRAMES);
                let sink = |_, report: skystreak::Result<_>| assert_found(&report.unwrap());
                detector.stream(&StreamConfig::default(), frames, |f| Ok(f.as_borrowed()), sink).unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sizes, stars, stream);
criterion_main!(benches);
