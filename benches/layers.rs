//! Attention and matrix products, each through a model that is hardly more than that.
//!
//! `attention` is one layer of 9 query and 3 key-value heads of 64 over a hidden size of 64: rates are cached positions
//! a second that queries look at. `gemm` is the head of a model whose only layer is next to nothing: names say rows and
//! columns of the weights, and `m` how many vectors they are multiplied with; rates are multiplications and additions.
//! `ROLLFORGE_BENCH_THREADS` sets the number of threads, 2 without it.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::{
    engine::{
        EngineModel,
        native::{
            BlockId, Forward, LogitsWanted, SequenceStep,
            cpu::{Cpu, CpuOptions},
        },
    },
    model::{Init, ModelSpec, random_weights},
    rollout::Dtype,
};

const BLOCK_SIZE: usize = 16;

fn smallest(dtype: Dtype) -> ModelSpec {
    ModelSpec {
        hidden_size: 64,
        intermediate_size: 8,
        num_layers: 1,
        num_heads: 1,
        num_kv_heads: 1,
        head_dim: 8,
        vocab_size: 32,
        max_positions: 4_096,
        tie_word_embeddings: true,
        dtype,
        ..EngineModel::tiny(0).spec
    }
}

/// A model, and the cache of as many sequences of a length.
struct Stand {
    cpu: Cpu,
    tables: Vec<Vec<BlockId>>,
    logits: Vec<f32>,
}

impl Stand {
    fn new(spec: ModelSpec, batch: usize, length: usize) -> Self {
        let threads = std::env::var("ROLLFORGE_BENCH_THREADS").ok().and_then(|n| n.parse().ok());
        let options = CpuOptions { threads: threads.unwrap_or(2), ..CpuOptions::default() };
        let weights = random_weights(&spec, Init { std: 0.02, seed: 1 });
        let mut cpu = Cpu::new(spec, &weights, options).expect("a model of our own");
        let each = length.div_ceil(BLOCK_SIZE) as u32;
        cpu.allocate_kv(batch * each as usize, BLOCK_SIZE).expect("room for the cache");
        let table = |sequence: u32| (0..each).map(move |block| BlockId(sequence * each + block));
        let tables = (0..batch as u32).map(|sequence| table(sequence).collect()).collect();
        Self { cpu, tables, logits: Vec::new() }
    }

    /// Computes `count` tokens from `start` on, for each sequence.
    fn step(&mut self, start: usize, count: usize) {
        let tokens = vec![1; count];
        let part =
            |blocks| SequenceStep { tokens: &tokens, start, blocks, logits: LogitsWanted::Last };
        let sequences: Vec<_> = self.tables.iter().map(|blocks| part(blocks)).collect();
        self.cpu.step(&sequences, black_box(&mut self.logits)).expect("nobody writes to weights");
    }
}

fn attention(criterion: &mut Criterion) {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let spec = || ModelSpec { num_heads: 9, num_kv_heads: 3, head_dim: 64, ..smallest(dtype) };
        let mut group = criterion.benchmark_group(format!("attention/h9_kv3_d64_{dtype}"));
        group.sample_size(20);
        for (batch, length) in [(1, 2_048), (32, 128), (32, 1_024)] {
            let mut stand = Stand::new(spec(), batch, length);
            group.throughput(Throughput::Elements((batch * length) as u64));
            group.bench_function(format!("decode_b{batch}_t{length} positions_per_s"), |bencher| {
                // Any numbers in the cache take as long to attend to.
                bencher.iter(|| stand.step(length - 1, 1));
            });
        }
        let length = 512;
        let mut stand = Stand::new(spec(), 1, length);
        group.throughput(Throughput::Elements((length * (length + 1) / 2) as u64));
        group.bench_function(format!("prefill_b1_t{length} positions_per_s"), |bencher| {
            bencher.iter(|| stand.step(0, length));
        });
        group.finish();
    }
}

fn gemm(criterion: &mut Criterion) {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        for (rows, columns) in [(1_536, 576), (576, 1_536), (49_152, 576), (4_864, 896)] {
            let group = format!("gemm/{rows}x{columns}_{dtype}");
            let mut group = criterion.benchmark_group(group);
            group.sample_size(20);
            for vectors in [1, 8, 32, 64] {
                let spec = ModelSpec { vocab_size: rows, hidden_size: columns, ..smallest(dtype) };
                let mut stand = Stand::new(spec, vectors, 1);
                group.throughput(Throughput::Elements((2 * rows * columns * vectors) as u64));
                group.bench_function(format!("m{vectors} flop_per_s"), |bencher| {
                    bencher.iter(|| stand.step(0, 1));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, attention, gemm);
criterion_main!(benches);
