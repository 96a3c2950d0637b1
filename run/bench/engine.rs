//! How fast the embedded engine generates, as its users call it.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{
    Report, Row, Subject, Turns, Unit,
    limits::Limits,
    peer::{Answer, Arguments},
    report::Agreement,
    subject::{OnDisk, engine_dtype, prompt},
    turns::{at_least, repeated},
};
use crate::{
    engine::{Engine, EngineConfig, Request, SamplingParams},
    model::ModelSpec,
    rollout::{Dtype, Prompt, PromptId, Rollout},
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct EngineBench {
    /// The model.
    pub model: Subject,
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
    /// How often, and with whom.
    pub turns: Turns,
}

/// Measures; `progress` hears what comes next.
///
/// # Errors
/// One line: what is missing, or cannot be used.
pub fn engine(options: &EngineBench, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    options.check()?;
    let disk = options.turns.on_disk(&options.model, options.dtype)?;
    let model = match &disk {
        Some(disk) => disk.open(options.dtype)?,
        None => options.model.open(options.dtype)?,
    };
    let spec = model.spec.clone();
    let longest = options.prefill.iter().copied().max().unwrap_or(0);
    let room = longest.max(options.prompt + options.new);
    ensure!(
        room <= spec.max_positions,
        "the model has {} positions, and {room} are asked for",
        spec.max_positions
    );
    let mut report = Report::begin("engine", options.threads, progress)?;
    let threads = report.limits.threads;
    report.set("model", options.model.name());
    report.set("parameters", spec.parameters());
    report.set("dtype", options.dtype.to_string());
    report.set("prompt", options.prompt);
    report.set("new", options.new);
    let largest = options.batches.iter().copied().max().unwrap_or(1);
    let config = EngineConfig {
        threads,
        dtype: engine_dtype(options.dtype),
        max_batch: largest,
        max_batch_tokens: EngineConfig::default().max_batch_tokens.max(largest),
        kv_cache_tokens: (largest * (options.prompt + options.new + 16)).max(longest + 16),
        ..EngineConfig::default()
    };
    let engine = Engine::builder().config(config).model(model).build()?;
    let bench = Bench { engine, spec, options, limits: report.limits.clone() };
    let arguments = match &disk {
        Some(disk) => options.arguments(disk, threads),
        None => Arguments::none(),
    };
    let answers = options
        .turns
        .take(&mut report, &arguments, progress, |progress| bench.measure(progress))?;
    for (peer, answer) in report.peers.iter_mut().zip(&answers) {
        // In bf16 each engine rounds in other places, and near-equal logits change places.
        if options.dtype == Dtype::F32 {
            peer.agreement = bench.agreement(answer)?;
        }
    }
    Ok(report)
}

impl EngineBench {
    fn check(&self) -> Result<()> {
        self.turns.check()?;
        at_least("--batch", 1, self.batches.iter().copied())?;
        at_least("--prefill", 1, self.prefill.iter().copied())?;
        at_least("--prompt", 1, [self.prompt])?;
        at_least("--new", 2, [self.new])
    }

    /// Returns what a peer is told.
    fn arguments(&self, disk: &OnDisk, threads: usize) -> Arguments {
        let list = |numbers: &[usize]| {
            numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        Arguments::new(disk.path())
            .with("--dtype", self.dtype)
            .with("--batch", list(&self.batches))
            .with("--prefill", list(&self.prefill))
            .with("--prompt", self.prompt)
            .with("--new", self.new)
            .with("--threads", threads)
            .with("--repeats", self.turns.repeats)
    }
}

struct Bench<'a> {
    engine: Engine,
    spec: ModelSpec,
    options: &'a EngineBench,
    limits: Limits,
}

impl Bench<'_> {
    fn measure(&self, progress: &mut dyn FnMut(&str)) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for &batch in &self.options.batches {
            progress(&format!("decode, batch {batch}"));
            rows.push(self.decode(batch)?);
        }
        for &length in &self.options.prefill {
            progress(&format!("prefill, {length} tokens"));
            rows.push(self.prefill(length)?);
        }
        Ok(rows)
    }

    /// Times all tokens of each sequence but the first, which comes with the prompt.
    fn decode(&self, batch: usize) -> Result<Row> {
        let EngineBench { prompt, new, .. } = *self.options;
        let values = repeated(self.options.turns.repeats, || {
            let (first, all) =
                (self.generate(batch, prompt, 1)?, self.generate(batch, prompt, new)?);
            // On a machine that was busy with something else the first time, the rest did not take less than no time.
            Ok((batch * (new - 1)) as f64 / (all - first).max(all / new as f64))
        })?;
        self.row(&format!("decode_b{batch}_p{prompt}_n{new}"), values, batch, batch)
    }

    /// Times a prompt and its first token.
    fn prefill(&self, length: usize) -> Result<Row> {
        let values = repeated(self.options.turns.repeats, || {
            Ok(length as f64 / self.generate(1, length, 1)?)
        })?;
        self.row(&format!("prefill_b1_t{length}"), values, length, 1)
    }

    fn row(&self, stem: &str, values: Vec<f64>, tokens: usize, logits: usize) -> Result<Row> {
        let least = self.limits.forward_seconds(&self.spec, self.options.dtype, tokens, logits);
        Row::new(stem, Unit::TokensPerSecond, values, Some(tokens as f64 / least))
    }

    /// Returns the seconds that this many completions take, sampled as in a rollout.
    fn generate(&self, batch: usize, prompt: usize, new: usize) -> Result<f64> {
        let sampling = SamplingParams { max_new_tokens: new, ..SamplingParams::default() };
        let start = Instant::now();
        let rollouts = self.sample((0..batch).map(|row| self.request(row, prompt, &sampling)))?;
        let seconds = start.elapsed().as_secs_f64();
        let tokens: usize = rollouts.iter().map(|rollout| rollout.rollout_logprobs.len()).sum();
        ensure!(tokens == batch * new, "{tokens} tokens came, {} were asked for", batch * new);
        Ok(seconds)
    }

    fn sample(&self, requests: impl Iterator<Item = Request>) -> Result<Vec<Rollout>> {
        Ok(self.engine.blocking().generate_all(requests.collect())?)
    }

    fn request(&self, row: usize, length: usize, sampling: &SamplingParams) -> Request {
        let tokens = prompt(row, length, self.spec.vocab_size);
        let prompt = Prompt { id: PromptId(row as u64), tokens: tokens.into() };
        Request::new(prompt, SamplingParams { ignore_eos: true, ..sampling.clone() })
    }

    /// Compares our greedy continuations with a peer's.
    fn agreement(&self, answer: &Answer) -> Result<Option<Agreement>> {
        let Some(theirs) = answer.greedy.as_ref().filter(|greedy| !greedy.is_empty()) else {
            return Ok(None);
        };
        let requests = theirs.iter().enumerate().map(|(row, tokens)| {
            let sampling = SamplingParams {
                max_new_tokens: tokens.len(),
                temperature: 0.0,
                ..SamplingParams::default()
            };
            self.request(row, self.options.prompt, &sampling)
        });
        let ours: Vec<_> = self.sample(requests)?.into_iter().map(|one| one.completion).collect();
        Ok(Some(same_tokens(&ours, theirs)))
    }
}

fn same_tokens(ours: &[impl AsRef<[u32]>], theirs: &[Vec<u32>]) -> Agreement {
    let all = theirs.len();
    let same = ours.iter().zip(theirs).filter(|(ours, theirs)| ours.as_ref() == *theirs).count();
    let tokens: usize = theirs.iter().map(Vec::len).sum();
    let found = format!("{same} of {all} greedy continuations ({tokens} tokens) are the same");
    Agreement { agrees: same == all, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::bench::Shape;

    #[test]
    fn what_cannot_be_measured_is_refused_in_one_line() {
        let turns = Turns { repeats: 1, rounds: 1, peers: Vec::new() };
        let options = EngineBench {
            model: Subject::Shape(Shape::Llama5M),
            dtype: Dtype::F32,
            batches: vec![1],
            prompt: 4,
            new: 4,
            prefill: Vec::new(),
            threads: 1,
            turns: turns.clone(),
        };
        for (bad, words) in [
            (EngineBench { batches: vec![8, 0], ..options.clone() }, "--batch must be at least 1"),
            (
                EngineBench { turns: Turns { repeats: 0, ..turns }, ..options.clone() },
                "--repeats must be at least 1",
            ),
            (EngineBench { new: 1, ..options.clone() }, "--new must be at least 2, got 1"),
            (EngineBench { prompt: 5_000, ..options }, "has 4096 positions, and 5004"),
        ] {
            let error = engine(&bad, &mut |_| ()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn one_other_token_is_a_disagreement() {
        let theirs = [vec![1, 2], vec![3, 4]];
        assert!(same_tokens(&[vec![1, 2], vec![3, 4]], &theirs).agrees);
        let other = same_tokens(&[vec![1, 2], vec![3, 5]], &theirs);
        assert!(!other.agrees && other.found.starts_with("1 of 2"), "{other:?}");
        assert!(!same_tokens(&[vec![1, 2]], &theirs).agrees);
    }
}
