//! How fast the embedded engine generates, as its users call it, against what the machine can do at most.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::{
    engine::{
        Engine, EngineConfig, EngineDtype, EngineModel, Request, SamplingParams,
        native::cpu::{Cpu, CpuOptions, Roofline},
    },
    model::ModelSpec,
    rollout::{Dtype, Prompt, PromptId},
    run::{
        bench::{Measurements, Shape},
        machine, model_directory,
    },
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct EngineBench {
    /// The model directory, or a run directory. None: a made-up model of `shape`.
    pub model: Option<PathBuf>,
    /// What to make up where no model is named.
    pub shape: Shape,
    /// The number format to compute with.
    pub dtype: Dtype,
    /// How many sequences are decoded at once, for each measurement of decoding.
    pub batches: Vec<usize>,
    /// Tokens of each prompt.
    pub prompt: usize,
    /// Tokens of each completion.
    pub new: usize,
    /// Lengths of single prompts, for each measurement of prefilling.
    pub prefill: Vec<usize>,
    /// Threads. 0 takes every core.
    pub threads: usize,
    /// How often each thing is measured, after a first time that does not count.
    pub repeats: usize,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineTimes {
    /// Where it was measured.
    pub machine: String,
    /// The kernels' instruction set.
    pub kernels: &'static str,
    /// The number format.
    pub dtype: String,
    /// Threads that computed.
    pub threads: usize,
    /// Weights of the model.
    pub parameters: usize,
    /// Gigabytes that memory gave in a second, measured before.
    pub read_gb_per_s: f64,
    /// Multiplications and additions in a second from registers, in this format, in units of 10^9, measured before.
    pub peak_gflops: f64,
    /// Each thing that was measured.
    pub rates: Vec<Rate>,
}

/// One thing that was measured, in tokens per second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// What: `decode_b32_p32_n64_tokens_per_s`.
    pub name: String,
    /// Tokens per second, each time.
    pub values: Measurements,
    /// What the machine could do at most.
    pub limit: f64,
}

impl Rate {
    /// Returns the share of the limit that the median reaches.
    pub fn share(&self) -> f64 {
        self.values.median() / self.limit
    }
}

/// Measures; `progress` hears what comes next.
///
/// # Errors
/// One line: what is missing, or cannot be used.
pub fn engine(options: &EngineBench, mut progress: impl FnMut(&str)) -> Result<EngineTimes> {
    for (name, numbers) in [("--batch", &options.batches), ("--prefill", &options.prefill)] {
        ensure!(!numbers.contains(&0), "{name} must be at least 1, got 0");
    }
    ensure!(options.repeats >= 1, "--repeats must be at least 1, got 0");
    ensure!(options.prompt >= 1, "--prompt must be at least 1, got 0");
    ensure!(options.new >= 2, "--new must be at least 2, got {}", options.new);
    let model = open(options)?;
    let spec = model.spec.clone();
    let longest = options.prefill.iter().copied().max().unwrap_or(0);
    let room = longest.max(options.prompt + options.new);
    ensure!(
        room <= spec.max_positions,
        "the model has {} positions, and {room} are asked for",
        spec.max_positions
    );
    progress("the machine's limits");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { cores } else { options.threads };
    let (roofline, kernels) = limits(threads)?;
    let largest = options.batches.iter().copied().max().unwrap_or(1);
    let config = EngineConfig {
        threads,
        dtype: if options.dtype == Dtype::F32 { EngineDtype::F32 } else { EngineDtype::Bf16 },
        max_batch: largest,
        max_batch_tokens: EngineConfig::default().max_batch_tokens.max(largest),
        kv_cache_tokens: (largest * (options.prompt + options.new + 16)).max(longest + 16),
        ..EngineConfig::default()
    };
    let engine = Engine::builder().config(config).model(model).build()?;
    let bench = Bench { engine, spec, options, limits: Limits::new(roofline, options.dtype) };
    let mut rates = Vec::new();
    for &batch in &options.batches {
        progress(&format!("decode, batch {batch}"));
        rates.push(bench.decode(batch)?);
    }
    for &length in &options.prefill {
        progress(&format!("prefill, {length} tokens"));
        rates.push(bench.prefill(length)?);
    }
    Ok(EngineTimes {
        machine: machine::summary(),
        kernels,
        dtype: options.dtype.to_string(),
        threads,
        parameters: bench.spec.parameters(),
        read_gb_per_s: bench.limits.read_bytes_per_s / 1e9,
        peak_gflops: bench.limits.flops / 1e9,
        rates,
    })
}

fn limits(threads: usize) -> Result<(Roofline, &'static str)> {
    let EngineModel { spec, weights, .. } = EngineModel::tiny(0);
    let mut cpu = Cpu::new(spec, &weights, CpuOptions { threads, ..CpuOptions::default() })?;
    Ok((cpu.roofline(), cpu.kernels()))
}

fn open(options: &EngineBench) -> Result<EngineModel> {
    let Some(path) = &options.model else { return Ok(options.shape.model(options.dtype)) };
    let dtype = if options.dtype == Dtype::F32 { EngineDtype::F32 } else { EngineDtype::Bf16 };
    let config = EngineConfig { dtype, ..EngineConfig::default() };
    Ok(EngineModel::open(&config, &model_directory(path))?)
}

/// What a machine can do with one number format.
struct Limits {
    read_bytes_per_s: f64,
    flops: f64,
    number: usize,
}

impl Limits {
    fn new(roofline: Roofline, dtype: Dtype) -> Self {
        let flops = if dtype == Dtype::F32 { roofline.f32_flops } else { roofline.bf16_flops };
        Self { read_bytes_per_s: roofline.read_bytes_per_s, flops, number: dtype.size() }
    }

    /// Returns the most tokens a second where `tokens` go through all weights together and `logits` of them through the
    /// head: each weight is read once, and multiplied and added once for each token. Attention comes on top.
    fn tokens_per_s(&self, spec: &ModelSpec, tokens: usize, logits: usize) -> f64 {
        let table = spec.vocab_size * spec.hidden_size;
        let tables = if spec.tie_word_embeddings { 1 } else { 2 };
        let body = (spec.parameters() - tables * table) as f64;
        let read = (body + table as f64) * self.number as f64 / self.read_bytes_per_s;
        let operations = 2.0 * (body * tokens as f64 + (table * logits) as f64);
        tokens as f64 / read.max(operations / self.flops)
    }
}

struct Bench<'a> {
    engine: Engine,
    spec: ModelSpec,
    options: &'a EngineBench,
    limits: Limits,
}

impl Bench<'_> {
    /// Times all tokens of each sequence but the first, which comes with the prompt.
    fn decode(&self, batch: usize) -> Result<Rate> {
        let EngineBench { prompt, new, .. } = *self.options;
        let once = || -> Result<f64> {
            let (first, all) =
                (self.generate(batch, prompt, 1)?, self.generate(batch, prompt, new)?);
            Ok((batch * (new - 1)) as f64 / (all - first).max(1e-9))
        };
        Ok(Rate {
            name: format!("decode_b{batch}_p{prompt}_n{new}_tokens_per_s"),
            values: self.repeated(once)?,
            limit: self.limits.tokens_per_s(&self.spec, batch, batch),
        })
    }

    /// Times a prompt and its first token.
    fn prefill(&self, length: usize) -> Result<Rate> {
        let once = || Ok(length as f64 / self.generate(1, length, 1)?);
        Ok(Rate {
            name: format!("prefill_b1_t{length}_tokens_per_s"),
            values: self.repeated(once)?,
            limit: self.limits.tokens_per_s(&self.spec, length, 1),
        })
    }

    fn repeated(&self, once: impl Fn() -> Result<f64>) -> Result<Measurements> {
        once()?;
        let values: Vec<f64> = (0..self.options.repeats).map(|_| once()).collect::<Result<_>>()?;
        Ok(values.into())
    }

    /// Returns the seconds that this many completions take, sampled as in a rollout.
    fn generate(&self, batch: usize, prompt: usize, new: usize) -> Result<f64> {
        let sampling =
            SamplingParams { max_new_tokens: new, ignore_eos: true, ..SamplingParams::default() };
        let requests: Vec<Request> = (0..batch)
            .map(|row| {
                let token = |i: usize| ((row * 31 + i * 7) % self.spec.vocab_size) as u32;
                let tokens: Vec<u32> = (0..prompt).map(token).collect();
                let prompt = Prompt { id: PromptId(row as u64), tokens: tokens.into() };
                Request::new(prompt, sampling.clone())
            })
            .collect();
        let start = Instant::now();
        let rollouts = self.engine.blocking().generate_all(requests)?;
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize = rollouts.iter().map(|rollout| rollout.rollout_logprobs.len()).sum();
        ensure!(tokens == batch * new, "{tokens} tokens came, {} were asked for", batch * new);
        Ok(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { read_bytes_per_s: 1e6, flops: 1e9, number: 2 };

    #[test]
    fn one_token_is_limited_by_memory_and_many_by_arithmetic() {
        let spec = EngineModel::tiny(0).spec;
        let weights = spec.parameters() as f64;
        let table = (spec.vocab_size * spec.hidden_size) as f64;
        let read = if spec.tie_word_embeddings { weights } else { weights - table };
        let one = LIMITS.tokens_per_s(&spec, 1, 1);
        assert!((one - 1e6 / (2.0 * read)).abs() < 1e-6, "{one}");
        let many = LIMITS.tokens_per_s(&spec, 100_000, 100_000);
        assert!((many - 1e9 / (2.0 * read)).abs() < 1e-3, "{many}");
        assert!(LIMITS.tokens_per_s(&spec, 100_000, 1) > many);
    }

    #[test]
    fn what_cannot_be_measured_is_refused_in_one_line() {
        let options = EngineBench {
            model: None,
            shape: Shape::Llama5M,
            dtype: Dtype::F32,
            batches: vec![1],
            prompt: 4,
            new: 4,
            prefill: Vec::new(),
            threads: 1,
            repeats: 1,
        };
        for (bad, words) in [
            (EngineBench { batches: vec![8, 0], ..options.clone() }, "--batch must be at least 1"),
            (EngineBench { repeats: 0, ..options.clone() }, "--repeats must be at least 1"),
            (EngineBench { new: 1, ..options.clone() }, "--new must be at least 2, got 1"),
            (EngineBench { prompt: 5_000, ..options }, "has 4096 positions, and 5004"),
        ] {
            let error = engine(&bad, |_| ()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
