//! A micro-batch's forward and backward pass and an optimizer step, on 2 threads. Every token but the first is trained
//! on; rates are tokens per second.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::{
    model::{Init, ModelSpec, NewModelSpec, random_weights},
    rollout::Dtype,
    trainer::{
        batch::PackedBatch,
        config::OptimizerConfig,
        torch::{
            AdamW, LogprobOptions, Model, ModelOptions, TokenGradient, TokenLogprobs, libtorch,
        },
    },
};

struct Case {
    name: &'static str,
    spec: ModelSpec,
    sequences: usize,
    length: usize,
}

fn cases() -> [Case; 2] {
    let small = NewModelSpec {
        hidden_size: 192,
        intermediate_size: 512,
        max_positions: 64,
        ..NewModelSpec::default()
    };
    [
        Case { name: "2M_b64_t48", spec: small.shape(1024), sequences: 64, length: 48 },
        Case {
            name: "4M_b8_t256",
            spec: NewModelSpec::default().shape(4096),
            sequences: 8,
            length: 256,
        },
    ]
}

/// Sequences whose lengths lie between half of `length` and `length`, and add up to three quarters of the grid.
fn batch(case: &Case) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for i in 0..case.sequences {
        let length =
            case.length / 2 + (case.length / 2) * i / case.sequences.max(2).saturating_sub(1);
        let tokens: Vec<u32> =
            (0..length).map(|t| ((i * 31 + t * 17) % case.spec.vocab_size) as u32).collect();
        batch.push(&tokens, &vec![true; length]);
    }
    batch
}

fn step(model: &mut Model, optimizer: &mut AdamW, batch: &PackedBatch) {
    let mean = |outputs: &TokenLogprobs| {
        let count = outputs.logprobs.len();
        TokenGradient { logprobs: vec![-1.0 / count as f32; count], ..TokenGradient::default() }
    };
    model.train_logprobs(batch, &LogprobOptions::default(), mean).expect("a training pass");
    optimizer.step(model, 1e-4).expect("an optimizer step");
}

fn train(criterion: &mut Criterion) {
    libtorch::set_threads(2).expect("two threads");
    let mut group = criterion.benchmark_group("train/cpu");
    group.sample_size(10);
    for case in cases() {
        let (weights, batch) = (random_weights(&case.spec, Init::default()), batch(&case));
        group.throughput(Throughput::Elements(batch.tokens.len() as u64));
        for compute in [Dtype::F32, Dtype::Bf16] {
            let options = ModelOptions { compute, ..ModelOptions::default() };
            let mut model = Model::load(&case.spec, &weights, &options).expect("a model");
            let mut optimizer =
                AdamW::new(&model, &OptimizerConfig::default()).expect("an optimizer");
            group.bench_function(format!("{}_{compute}", case.name), |bencher| {
                bencher.iter(|| step(&mut model, &mut optimizer, &batch));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, train);
criterion_main!(benches);
