//! Fits, profiles along tracks, trails taken out.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn measure(c: &mut Criterion) {
    support::bench_operations(c, "measure", &["fit", "profiles", "add_trails"]);
}

criterion_group!(benches, measure);
criterion_main!(benches);
