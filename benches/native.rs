//! What the embedded engine does beside the transformer, on one thread: planning and sampling.
//!
//! Both run through the engine itself, over a forward pass that computes nothing and answers with one row of logits for
//! each token. `scheduler` has a vocabulary of 8 tokens, so that hardly more than plans and events is left; `sampler`
//! has one sequence and a real vocabulary, and pays for copying its row of logits, too. Names say batch, prompt and
//! completion, or vocabulary and how tokens are drawn.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rollforge::{
    engine::{
        Backend, EngineConfig, EngineModel, Error, RefitMode, RefitReport, Request, SamplingParams,
        native::{BlockId, Forward, LogitsWanted, Native, SequenceStep, Vocabulary},
    },
    model::ModelSpec,
    rollout::{Prompt, PromptId, Weights},
};

const PROMPT: usize = 16;
const NEW: usize = 64;

/// Knows the logits before it is asked.
struct Idle {
    spec: ModelSpec,
    weights: Weights,
    row: Vec<f32>,
}

impl Idle {
    fn new(vocab_size: usize) -> Self {
        let EngineModel { spec, weights, .. } = EngineModel::tiny(0);
        // A bell of a few thousand likely tokens in no order, as a model's logits are.
        let row = (0..vocab_size).map(|id| (id as f32 * 1.618).fract() * 12.0 - 6.0).collect();
        Self { spec: ModelSpec { vocab_size, ..spec }, weights, row }
    }
}

impl Forward for Idle {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn allocate_kv(&mut self, _: usize, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn copy_block(&mut self, _: BlockId, _: BlockId) {}

    fn step(&mut self, sequences: &[SequenceStep<'_>], logits: &mut Vec<f32>) -> Result<(), Error> {
        logits.clear();
        for _ in sequences.iter().filter(|sequence| sequence.logits == LogitsWanted::Last) {
            logits.extend_from_slice(&self.row);
        }
        Ok(())
    }

    fn refit(&mut self, _: &Weights, _: RefitMode, _: bool) -> Result<RefitReport, Error> {
        unreachable!("nothing is refitted here")
    }

    fn weights(&self) -> &Weights {
        &self.weights
    }
}

fn engine(vocab_size: usize, batch: usize) -> Native<Idle> {
    let config = EngineConfig {
        max_batch: batch,
        kv_cache_tokens: 2 * batch * (PROMPT + NEW),
        ..EngineConfig::default()
    };
    Native::new(Idle::new(vocab_size), &config, Vocabulary::default()).expect("a valid engine")
}

/// Answers a prompt for each place of the batch.
fn generate(engine: &mut Native<Idle>, batch: usize, sampling: &Arc<SamplingParams>) {
    for id in 0..batch as u64 {
        let prompt = Prompt { id: PromptId(id), tokens: vec![1; PROMPT].into() };
        engine.submit(Request::new(prompt, sampling.clone())).expect("a valid request");
    }
    let mut events = Vec::new();
    while engine.is_busy() {
        events.clear();
        engine.poll(&mut events).expect("nothing can fail");
    }
}

fn sampling(change: impl FnOnce(&mut SamplingParams)) -> Arc<SamplingParams> {
    let mut sampling = SamplingParams { max_new_tokens: NEW, ..SamplingParams::default() };
    change(&mut sampling);
    Arc::new(sampling)
}

fn scheduler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scheduler");
    let greedy = sampling(|it| it.temperature = 0.0);
    for batch in [1, 32, 256] {
        let mut engine = engine(8, batch);
        group.throughput(Throughput::Elements((batch * NEW) as u64));
        group.bench_function(format!("b{batch}_p{PROMPT}_n{NEW} tokens_per_s"), |bencher| {
            bencher.iter(|| generate(&mut engine, batch, &greedy));
        });
    }
    group.finish();
}

fn sampler(criterion: &mut Criterion) {
    let ways = [
        ("greedy", sampling(|it| it.temperature = 0.0)),
        ("t1", sampling(|it| it.temperature = 1.0)),
        ("top_k50", sampling(|it| it.top_k = 50)),
        ("top_p0.9", sampling(|it| it.top_p = 0.9)),
    ];
    for vocab_size in [49_152, 151_936] {
        let mut engine = engine(vocab_size, 1);
        let mut group = criterion.benchmark_group(format!("sampler/v{vocab_size}"));
        group.throughput(Throughput::Elements(NEW as u64)).sample_size(20);
        for (name, sampling) in &ways {
            group.bench_function(format!("{name} tokens_per_s"), |bencher| {
                bencher.iter(|| generate(&mut engine, 1, sampling));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, scheduler, sampler);
criterion_main!(benches);
