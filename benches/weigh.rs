//! Sources weighed out.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn weigh(c: &mut Criterion) {
    support::bench_operations(c, "weigh", &["weigh_out_hot", "find_compact", "weigh_out"]);
}

criterion_group!(benches, weigh);
criterion_main!(benches);
