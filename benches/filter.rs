//! The PSF filter.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn filter(c: &mut Criterion) {
    support::bench_operations(c, "filter", &["filter"]);
}

criterion_group!(benches, filter);
criterion_main!(benches);
