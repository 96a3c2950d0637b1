//! Advantages of one iteration's tokens, on one thread: estimated, then whitened.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rollforge::trainer::advantage::{Mean, gae, whiten};

/// Rollouts and tokens of each.
const SHAPES: [(usize, usize); 2] = [(32, 64), (512, 1_024)];

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.618).fract() - 0.5).collect()
}

fn advantage(criterion: &mut Criterion) {
    for (rollouts, tokens) in SHAPES {
        let (rewards, values) = (numbers(rollouts * tokens), numbers(tokens));
        let mut group = criterion.benchmark_group(format!("advantage/{rollouts}x{tokens}"));
        group.throughput(Throughput::Elements((rollouts * tokens) as u64)).sample_size(20);
        group.bench_function("gae tokens_per_s", |bencher| {
            bencher.iter(|| {
                for rewards in rewards.chunks(tokens) {
                    black_box(gae(rewards, &values, 1.0, 0.95));
                }
            });
        });
        group.bench_function("whiten tokens_per_s", |bencher| {
            let whitened = |numbers: &mut Vec<f32>| whiten(numbers, Mean::Shift);
            bencher.iter_batched_ref(|| rewards.clone(), whitened, BatchSize::LargeInput);
        });
        group.finish();
    }
}

criterion_group!(benches, advantage);
criterion_main!(benches);
