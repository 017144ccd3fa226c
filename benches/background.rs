//! Background stage: robust statistics of the tiles, and the sky taken off.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn background(c: &mut Criterion) {
    support::bench_operations(c, "background", &["tile_statistics", "normalise", "take_off_lines"]);
}

criterion_group!(benches, background);
criterion_main!(benches);
