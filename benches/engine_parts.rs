//! The embedded engine's parts, each through a public face behind which little else happens:
//!
//! - the scheduler and the sampler: [`Native`] over a forward pass that computes nothing, with 8 tokens to choose from and
//!   with 151,936;
//! - attention: [`Cpu`] with a model that is almost nothing but attention, over a long context;
//! - matrix products: [`Cpu`] with a model that is almost nothing but a head.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::{
    engine::{
        EngineConfig, EngineModel, Error, RefitMode, RefitReport, Request, SamplingParams,
        backend::Backend,
        native::{
            BlockId, Forward, LogitsWanted, Native, SequenceStep, Vocabulary,
            cpu::{Cpu, CpuOptions},
        },
    },
    model::{Init, ModelSpec, random_weights},
    rollout::{Dtype, Prompt, PromptId, Weights},
};

const BLOCK_SIZE: usize = 16;

/// Returns a tiny model's shape with other sizes.
fn spec(vocab_size: usize, hidden_size: usize, heads: usize) -> ModelSpec {
    ModelSpec {
        vocab_size,
        hidden_size,
        num_heads: heads,
        num_kv_heads: heads,
        head_dim: 64,
        intermediate_size: 32,
        num_layers: 1,
        max_positions: 8_192,
        tie_word_embeddings: true,
        dtype: Dtype::Bf16,
        ..EngineModel::tiny(0).spec
    }
}

/// A forward pass that computes nothing: the same logits for every token.
struct Still {
    spec: ModelSpec,
    row: Vec<f32>,
    weights: Weights,
}

impl Still {
    fn new(vocab_size: usize) -> Self {
        let EngineModel { spec, weights, .. } = EngineModel::tiny(0);
        let row = (0..vocab_size).map(|id| ((id * 7919) % 1000) as f32 / 100.0).collect();
        Self { spec: ModelSpec { vocab_size, max_positions: 1 << 20, ..spec }, row, weights }
    }
}

impl Forward for Still {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn allocate_kv(&mut self, _: usize, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn copy_block(&mut self, _: BlockId, _: BlockId) {}

    fn step(&mut self, sequences: &[SequenceStep<'_>], logits: &mut Vec<f32>) -> Result<(), Error> {
        logits.clear();
        for step in sequences {
            if step.logits != LogitsWanted::None {
                logits.extend_from_slice(&self.row);
            }
        }
        Ok(())
    }

    fn refit(&mut self, _: &Weights, _: RefitMode, _: bool) -> Result<RefitReport, Error> {
        unreachable!("nobody refits")
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

/// One step of 64 sequences that never end: planned, "computed", sampled.
fn steps(criterion: &mut Criterion) {
    for (name, vocab_size) in [("scheduler", 8), ("sampler", 151_936)] {
        let config = EngineConfig { kv_cache_tokens: 1 << 22, ..EngineConfig::default() };
        let vocabulary = Vocabulary { eos: Vec::new(), tokenizer: None };
        let mut engine =
            Native::new(Still::new(vocab_size), &config, vocabulary).expect("a model of our own");
        let sampling = SamplingParams { max_new_tokens: 1 << 19, ..SamplingParams::default() };
        for id in 0..64 {
            let prompt = Prompt { id: PromptId(id), tokens: vec![1, 2].into() };
            engine.submit(Request::new(prompt, sampling.clone())).expect("a request that fits");
        }
        let mut events = Vec::new();
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(64));
        group.bench_function(format!("b64_v{vocab_size} tokens_per_s"), |bencher| {
            bencher.iter(|| {
                events.clear();
                engine.poll(black_box(&mut events)).expect("nothing can fail");
            });
        });
        group.finish();
    }
}

fn cpu(spec: ModelSpec) -> Cpu {
    let weights = random_weights(&spec, Init { std: 0.02, seed: 1 });
    let options = CpuOptions { threads: 2, ..CpuOptions::default() };
    let mut cpu = Cpu::new(spec, &weights, options).expect("a model of our own");
    cpu.allocate_kv(32 * 2_048 / BLOCK_SIZE, BLOCK_SIZE).expect("room for the cache");
    cpu
}

/// One token for each of so many sequences, after `start` others.
fn decode(cpu: &mut Cpu, batch: usize, start: usize, logits: &mut Vec<f32>) {
    let blocks = |row: usize| (row * 128..(row + 1) * 128).map(|block| BlockId(block as u32));
    let tables: Vec<Vec<BlockId>> = (0..batch).map(|row| blocks(row).collect()).collect();
    let step = |blocks| SequenceStep { tokens: &[1], start, blocks, logits: LogitsWanted::Last };
    let sequences: Vec<_> = tables.iter().map(|blocks| step(blocks.as_slice())).collect();
    cpu.step(&sequences, logits).expect("nobody writes to the weights");
}

fn attention(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attention");
    let (mut cpu, mut logits) = (cpu(spec(16, 64, 16)), Vec::new());
    for (batch, start) in [(1, 2_000), (32, 2_000)] {
        // Keys and values of all heads, in bf16.
        group.throughput(Throughput::Bytes((batch * start * 2 * 16 * 64 * 2) as u64));
        group.bench_function(format!("b{batch}_h16_t{start} bytes_per_s"), |bencher| {
            bencher.iter(|| decode(&mut cpu, batch, start, black_box(&mut logits)));
        });
    }
    group.finish();
}

fn products(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("product");
    for (hidden, vocab_size) in [(576, 49_152), (896, 151_936)] {
        let (mut cpu, mut logits) = (cpu(spec(vocab_size, hidden, 1)), Vec::new());
        for batch in [1, 8, 32] {
            group.throughput(Throughput::Elements((2 * batch * hidden * vocab_size) as u64));
            group.bench_function(format!("m{batch}_k{hidden}_n{vocab_size} flops"), |bencher| {
                bencher.iter(|| decode(&mut cpu, batch, 1, black_box(&mut logits)));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = steps, attention, products
}
criterion_main!(benches);
