//! The fast Radon transform with its peaks, and what the memory could do.

mod support;

use std::hint::black_box;
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn transform(c: &mut Criterion) {
    support::bench_operations(c, "transform", &["find_peaks"]);
}

/// Copies blocks far larger than any cache on all cores: bytes read and bytes written are counted.
fn copy(c: &mut Criterion) {
    const BYTES: usize = 256 << 20;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let from = vec![1_u8; BYTES];
    let mut to = vec![0_u8; BYTES];
    let mut group = support::group(c, "memory");
    group.throughput(Throughput::Bytes(2 * BYTES as u64));
    group.bench_function("copy", |b| {
        b.iter(|| {
            let part = BYTES.div_ceil(threads);
            thread::scope(|scope| {
                for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                    scope.spawn(|| black_box(to).copy_from_slice(black_box(from)));
                }
            });
        });
    });
    group.finish();
    assert_eq!(to, from);
}

criterion_group!(benches, transform, copy);
criterion_main!(benches);
