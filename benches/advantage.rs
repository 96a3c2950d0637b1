//! Generalised advantage estimation of a batch, completion by completion.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::trainer::advantage::gae;

fn advantages(criterion: &mut Criterion) {
    let (rewards, values) = (vec![0.1; 64], vec![0.2; 64]);
    let mut group = criterion.benchmark_group("gae");
    group.throughput(Throughput::Elements(32 * 64));
    group.bench_function("b32_t64 tokens_per_s", |bencher| {
        bencher.iter(|| {
            for _ in 0..32 {
                black_box(gae(black_box(&rewards), black_box(&values), 1.0, 0.95));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, advantages);
criterion_main!(benches);
