//! The fast Radon transform with its peaks.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn transform(c: &mut Criterion) {
    support::bench_operations(c, "transform", &["find_peaks"]);
}

criterion_group!(benches, transform);
criterion_main!(benches);
