//! The embedded engine itself: plan, forward, sample, events.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    BlockId, Forward, LogitsWanted, SequenceStep,
    kv_cache::BlockPool,
    sampler::{Draw, Drawn, Key, Sampler, log_softmax},
    scheduler::{Limits, Plan, Scheduler},
    sequence::{Sequence, SequenceId},
};
use crate::{
    engine::{
        Backend, EngineConfig, Error, Event, RefitInFlight, RefitMode, RefitReport, Request,
        RequestId, Stats, config::rule, text::StopWatch,
    },
    model::Tokenizer,
    rollout::{StopReason, Weights},
};

/// What an engine must know of a model's tokens beside their number.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// The model's own end-of-sequence ids.
    pub eos: Vec<u32>,
    /// The tokenizer: without one there are no stop strings.
    pub tokenizer: Option<Tokenizer>,
}

/// The embedded engine over a forward pass.
pub struct Native<F> {
    forward: F,
    scheduler: Scheduler,
    vocabulary: Vocabulary,
    /// One per thread of the forward pass, which also sample. Each is locked by its own thread only.
    samplers: Vec<Mutex<Sampler>>,
    logits: Vec<f32>,
    next: u64,
    stats: Stats,
    /// A refit leaves what the old weights computed of sequences in flight.
    keeps_kv: bool,
}

/// Tokens of all copies of one request's prompt (64 MiB): each sample has its own from the start.
const MAX_PROMPTS: usize = 16 << 20;

/// Logits of one step take at most this many numbers (64 MiB), a row per running sequence aside.
const MAX_LOGITS: usize = 16 << 20;

/// Below this many logits, sharing out the sampling costs more than it saves.
const PARALLEL_LOGITS: usize = 1 << 16;

impl<F: Forward> Native<F> {
    /// Sets up the KV cache and the scheduler around a forward pass.
    ///
    /// # Errors
    /// When the configuration breaks a rule, or there is no memory for the KV cache.
    pub fn new(
        mut forward: F,
        config: &EngineConfig,
        vocabulary: Vocabulary,
    ) -> Result<Self, Error> {
        config.validate()?;
        let spec = forward.spec();
        let dtype = forward.weights().iter().map(|(_, tensor)| tensor.dtype).next();
        let blocks = config.kv_blocks(spec, dtype.unwrap_or(spec.dtype));
        let bounded = u32::try_from(blocks).is_ok();
        rule(bounded, "kv_cache_tokens", "at most 2^32 blocks", config.kv_cache_tokens)?;
        let limits = Limits {
            max_batch: config.max_batch,
            max_tokens: config.max_batch_tokens,
            max_rows: config.max_batch.max(MAX_LOGITS / spec.vocab_size.max(1)),
        };
        forward.allocate_kv(blocks, config.block_size)?;
        Ok(Self {
            scheduler: Scheduler::new(limits, BlockPool::new(blocks, config.block_size)),
            vocabulary,
            samplers: (0..forward.threads()).map(|_| Mutex::default()).collect(),
            logits: Vec::new(),
            next: 0,
            stats: Stats { version: forward.weights().version(), ..Stats::default() },
            keeps_kv: config.refit_in_flight == RefitInFlight::Keep,
            forward,
        })
    }

    /// Checks a request against the model and returns the longest sequence it may become.
    fn check(&self, request: &Request) -> Result<usize, Error> {
        let (spec, sampling) = (self.forward.spec(), &request.sampling);
        sampling.validate()?;
        let prompt = request.prompt.tokens.ids();
        rule(!prompt.is_empty(), "prompt", "at least one token", "none")?;
        let vocab_size = spec.vocab_size;
        let below = format!("token ids below {vocab_size}");
        for (field, ids) in [("prompt", prompt), ("stop_token_ids", &sampling.stop_token_ids)] {
            let bad = ids.iter().find(|&&id| id as usize >= vocab_size);
            rule(bad.is_none(), field, &below, bad.copied().unwrap_or_default())?;
        }
        let has_text = self.vocabulary.tokenizer.is_some();
        let without = "empty where the engine has no tokenizer";
        rule(has_text || sampling.stop.is_empty(), "stop", without, sampling.stop.len())?;
        let context = spec.max_positions;
        let least = prompt.len() + sampling.max_new_tokens.min(1);
        if least > context {
            return Err(Error::PromptTooLong { tokens: prompt.len(), context });
        }
        let max_len = prompt.len().saturating_add(sampling.max_new_tokens).min(context);
        let tokens = prompt.len() * sampling.n as usize;
        rule(
            tokens <= MAX_PROMPTS,
            "n",
            "such that n prompts have at most 16777216 tokens",
            sampling.n,
        )?;
        let pool = self.scheduler.pool();
        // The last token is never computed, unless it belongs to the prompt.
        let needed = pool.blocks_for((max_len - 1).max(prompt.len()));
        if needed > pool.total() {
            return Err(Error::KvCacheTooSmall { needed, total: pool.total() });
        }
        Ok(max_len)
    }

    /// Returns the ids that end a completion of this request.
    fn stop_ids(&self, request: &Request) -> Result<Arc<[u32]>, Error> {
        let (sampling, vocab_size) = (&request.sampling, self.forward.spec().vocab_size);
        let eos: &[u32] = if sampling.ignore_eos { &[] } else { &self.vocabulary.eos };
        let mut ids: Vec<u32> = eos.iter().chain(&sampling.stop_token_ids).copied().collect();
        ids.retain(|&id| (id as usize) < vocab_size);
        ids.sort_unstable();
        ids.dedup();
        let left = ids.len() < vocab_size || sampling.min_new_tokens == 0;
        rule(left, "min_new_tokens", "0 where every token is a stop id", sampling.min_new_tokens)?;
        Ok(ids.into())
    }

    fn step(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let plan = self.scheduler.plan();
        for &(from, to) in &plan.copies {
            self.forward.copy_block(from, to);
        }
        if plan.parts.is_empty() {
            return Ok(());
        }
        let steps: Vec<SequenceStep<'_>> = plan
            .parts
            .iter()
            .map(|part| {
                let sequence = &self.scheduler.running()[part.index];
                let tokens = &sequence.tokens[part.start..part.start + part.count];
                let blocks: &[BlockId] = &sequence.blocks;
                SequenceStep { tokens, start: part.start, blocks, logits: part.logits }
            })
            .collect();
        self.forward.step(&steps, &mut self.logits)?;
        self.scheduler.advance(&plan);
        self.stats.engine_steps += 1;
        self.report_prompts(&plan, events)?;
        self.draw(&plan, events)
    }

    /// Adds the prompt tokens' log-probs that this step computed, and reports them once they are complete.
    fn report_prompts(&mut self, plan: &Plan, events: &mut Vec<Event>) -> Result<(), Error> {
        for (part, rows) in plan.parts.iter().zip(rows(plan)) {
            let sequence = &self.scheduler.running()[part.index];
            let prompt_len = sequence.prompt_len();
            let prompt_part = (part.start + part.count).min(prompt_len).saturating_sub(part.start);
            self.stats.prompt_tokens += prompt_part as u64;
            if part.logits != LogitsWanted::All {
                continue;
            }
            let vocab_size = self.forward.spec().vocab_size;
            let logits = &self.logits[rows.start * vocab_size..rows.end * vocab_size];
            let targets = sequence.tokens[part.start + 1..].iter().take(part.count);
            let tasks: Vec<(&[f32], u32)> =
                logits.chunks(vocab_size).zip(targets.copied()).collect();
            let scores = share(&mut self.forward, tasks.len(), |_, index| {
                let (row, id) = tasks[index];
                log_softmax(row, id)
            });
            let sequence = &self.scheduler.running()[part.index];
            let whole = scores.into_iter().enumerate().map(|(row, score)| {
                score.ok_or_else(|| self.not_finite(sequence, part.start + row + 1))
            });
            let scores = whole.collect::<Result<Vec<f32>, Error>>()?;
            let sequence = self.scheduler.sequence_mut(part.index);
            let Some(mut logprobs) = sequence.prompt_logprobs.take() else { continue };
            logprobs.extend(scores);
            if sequence.computed < prompt_len {
                sequence.prompt_logprobs = Some(logprobs);
            } else {
                events.push(Event::PromptLogprobs { id: sequence.id.request, logprobs });
            }
        }
        Ok(())
    }

    /// Draws a token for every sequence whose last one was computed, and lets go of those that end.
    fn draw(&mut self, plan: &Plan, events: &mut Vec<Event>) -> Result<(), Error> {
        let drawn = self.drawn(plan);
        let version = self.forward.weights().version();
        let mut ended: Vec<SequenceId> = Vec::new();
        for (index, drawn) in drawn {
            let sequence = &self.scheduler.running()[index];
            let SequenceId { request: id, sample } = sequence.id;
            let stop = if sequence.tokens.len() >= sequence.max_len {
                Some(StopReason::Length)
            } else {
                let position = sequence.tokens.len();
                let Drawn { token, logprob, raw_logprob } =
                    drawn.ok_or_else(|| self.not_finite(sequence, position))?;
                events.push(Event::Token { id, sample, token, logprob, raw_logprob, version });
                self.stats.generated_tokens += 1;
                self.scheduler.sequence_mut(index).push(token)
            };
            if let Some(stop) = stop {
                events.push(Event::Finished { id, sample, stop });
                ended.push(SequenceId { request: id, sample });
            }
        }
        self.scheduler.remove_running(|sequence| ended.contains(&sequence.id));
        Ok(())
    }

    /// Draws for each sequence that is wholly computed; returns its place in the batch with what was drawn.
    fn drawn(&mut self, plan: &Plan) -> Vec<(usize, Option<Drawn>)> {
        let (running, vocab_size) = (self.scheduler.running(), self.forward.spec().vocab_size);
        let logits = &self.logits;
        let draws: Vec<(usize, Draw<'_>)> = plan
            .parts
            .iter()
            .zip(rows(plan))
            .filter(|(part, _)| running[part.index].remaining() == 0)
            .map(|(part, rows)| {
                let row = &logits[(rows.end - 1) * vocab_size..rows.end * vocab_size];
                (part.index, draw_of(&running[part.index], row))
            })
            .collect();
        let samplers = &self.samplers;
        let draw_one = |thread: usize, index: usize| {
            let (place, draw) = &draws[index];
            (*place, samplers[thread].lock().draw(draw))
        };
        if draws.len() * vocab_size < PARALLEL_LOGITS {
            return (0..draws.len()).map(|index| draw_one(0, index)).collect();
        }
        share(&mut self.forward, draws.len(), draw_one)
    }

    fn not_finite(&self, sequence: &Sequence, position: usize) -> Error {
        Error::Logits {
            prompt: sequence.request.prompt.id,
            sample: sequence.id.sample,
            position,
            version: self.forward.weights().version(),
        }
    }
}

impl<F: Forward> Backend for Native<F> {
    fn submit(&mut self, request: Request) -> Result<RequestId, Error> {
        let max_len = self.check(&request)?;
        let stop_ids = self.stop_ids(&request)?;
        let id = RequestId(self.next);
        self.next += 1;
        let tokenizer = self.vocabulary.tokenizer.as_ref();
        let watched = tokenizer.filter(|_| !request.sampling.stop.is_empty());
        let request = Arc::new(request);
        for sample in 0..request.sampling.n {
            let id = SequenceId { request: id, sample };
            let mut sequence = Sequence::new(id, request.clone(), stop_ids.clone(), max_len);
            sequence.stop_watch = watched.map(StopWatch::new);
            self.scheduler.push(sequence);
        }
        Ok(id)
    }

    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), Error> {
        let started = Instant::now();
        let result = self.step(events);
        if result.is_err() {
            self.scheduler.clear();
        }
        self.stats.busy_seconds += started.elapsed().as_secs_f64();
        result
    }

    fn cancel(&mut self, id: RequestId) {
        self.scheduler.cancel(id);
    }

    fn is_busy(&self) -> bool {
        self.scheduler.waiting() + self.scheduler.running().len() > 0
    }

    fn is_drained(&self) -> bool {
        self.scheduler.is_drained()
    }

    fn hold_admission(&mut self, hold: bool) {
        self.scheduler.hold_admission(hold);
    }

    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        // KV of the old weights is never read by the new ones, unless that was asked for.
        if !self.keeps_kv {
            self.scheduler.preempt_all();
        }
        let report = self.forward.refit(weights, mode, checksum)?;
        self.stats.version = report.version;
        Ok(report)
    }

    fn stats(&self) -> Stats {
        let pool = self.scheduler.pool();
        Stats {
            waiting: self.scheduler.waiting(),
            running: self.scheduler.running().len(),
            kv_blocks_used: pool.total() - pool.free(),
            kv_blocks_total: pool.total(),
            ..self.stats
        }
    }
}

/// Returns which rows of logits belong to each part of a plan.
fn rows(plan: &Plan) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    plan.parts.iter().scan(0, |end, part| {
        let start = *end;
        *end += match part.logits {
            LogitsWanted::None => 0,
            LogitsWanted::Last => 1,
            LogitsWanted::All => part.count,
        };
        Some(start..*end)
    })
}

fn draw_of<'a>(sequence: &'a Sequence, logits: &'a [f32]) -> Draw<'a> {
    let sampling = &sequence.request.sampling;
    let key = Key {
        seed: sampling.seed,
        prompt: sequence.request.prompt.id,
        sample: sequence.id.sample,
        position: sequence.completion().len() as u64,
    };
    let (history, forbidden) = (&sequence.tokens, sequence.forbidden());
    Draw { logits, sampling, history, forbidden, key }
}

/// Computes `task(thread, index)` for each index below `tasks` on the forward pass's threads.
fn share<F: Forward, T: Send + Sync>(
    forward: &mut F,
    tasks: usize,
    task: impl Fn(usize, usize) -> T + Sync,
) -> Vec<T> {
    let results: Vec<OnceLock<T>> = (0..tasks).map(|_| OnceLock::new()).collect();
    forward.share(tasks, &|thread, index| {
        results[index].get_or_init(|| task(thread, index));
    });
    results.into_iter().map(|result| result.into_inner().expect("every task was run")).collect()
}
