//! Tokens per second of the CPU transformer alone: no scheduler, no sampling.
//!
//! Names say model, format, work and batch: `decode/5M_f32/b8_t128` computes one token for each of 8 sequences of 128.
//! `ROLLFORGE_BENCH_THREADS` sets the number of threads, 2 without it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::{
    engine::native::{
        BlockId, Forward, LogitsWanted, SequenceStep,
        cpu::{Cpu, CpuOptions},
    },
    model::{Family, Head, Init, ModelSpec, random_weights},
    rollout::Dtype,
};

const BLOCK_SIZE: usize = 16;

/// Returns a Llama: 4,096 tokens and 4 layers of 256 (5M), or 8 layers of 384 (20M).
fn spec(name: &str, dtype: Dtype) -> ModelSpec {
    let (hidden_size, num_layers, intermediate_size, heads, vocab_size) = match name {
        "5M" => (256, 4, 688, (4, 4), 4_096),
        "20M" => (384, 8, 1_024, (6, 2), 8_192),
        "135M" => (576, 30, 1_536, (9, 3), 49_152),
        other => unreachable!("no model {other}"),
    };
    ModelSpec {
        family: Family::Llama,
        head: Head::LanguageModel,
        labels: Vec::new(),
        hidden_size,
        intermediate_size,
        num_layers,
        num_heads: heads.0,
        num_kv_heads: heads.1,
        head_dim: 64,
        vocab_size,
        max_positions: 1_024,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: true,
        dtype,
    }
}

fn cpu(spec: &ModelSpec) -> Cpu {
    let threads = std::env::var("ROLLFORGE_BENCH_THREADS").ok().and_then(|n| n.parse().ok());
    let options = CpuOptions { threads: threads.unwrap_or(2), ..CpuOptions::default() };
    let weights = random_weights(spec, Init { std: 0.02, seed: 1 });
    let mut cpu = Cpu::new(spec.clone(), &weights, options).expect("a model of our own");
    cpu.allocate_kv(64 * 1_024 / BLOCK_SIZE, BLOCK_SIZE).expect("room for the cache");
    cpu
}

/// Computes `count` tokens from `start` on, for each of `batch` sequences.
fn step(cpu: &mut Cpu, batch: usize, (start, count): (usize, usize), logits: &mut Vec<f32>) {
    let per_sequence = (1_024 / BLOCK_SIZE) as u32;
    let tokens: Vec<u32> = (0..count as u32).map(|i| i * 7 % 4_000).collect();
    let tables: Vec<Vec<BlockId>> = (0..batch as u32)
        .map(|sequence| (0..per_sequence).map(|b| BlockId(sequence * per_sequence + b)).collect())
        .collect();
    let sequences: Vec<_> = tables
        .iter()
        .map(|blocks| SequenceStep { tokens: &tokens, start, blocks, logits: LogitsWanted::Last })
        .collect();
    cpu.step(&sequences, logits).expect("nobody writes to the weights");
}

fn forward(criterion: &mut Criterion) {
    for (model, dtype) in [("5M", Dtype::F32), ("20M", Dtype::F32), ("135M", Dtype::Bf16)] {
        let mut cpu = cpu(&spec(model, dtype));
        let mut logits = Vec::new();
        let mut group = criterion.benchmark_group(format!("decode/{model}_{dtype}"));
        for batch in [1, 8, 32] {
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(format!("b{batch}_t128 tokens_per_s"), |bencher| {
                // What the cache holds before does not matter: any numbers take as long to attend to.
                bencher.iter(|| step(&mut cpu, batch, (128, 1), black_box(&mut logits)));
            });
        }
        group.finish();
        let mut group = criterion.benchmark_group(format!("prefill/{model}_{dtype}"));
        group.throughput(Throughput::Elements(64));
        group.bench_function("b1_t64 tokens_per_s", |bencher| {
            bencher.iter(|| step(&mut cpu, 1, (0, 64), black_box(&mut logits)));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = forward
}
criterion_main!(benches);
