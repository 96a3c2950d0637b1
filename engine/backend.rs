//! The request-level seam: what every generation engine can do, however it schedules, batches and samples.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, config::rule};
use crate::rollout::{Prompt, PromptTokens, StopReason, WeightVersion, Weights};

/// How tokens are drawn. The order of application is that of transformers' `generate`: repetition penalty,
/// `min_new_tokens`, temperature, top-k, top-p, min-p. (vLLM applies min-p before top-k and top-p.)
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingParams {
    /// Divides the logits. 0 means greedy: the most likely token, the lowest id among equals.
    pub temperature: f32,
    /// Keeps the k most likely tokens, the lowest ids among equals. 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens whose probability reaches p. 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this share as likely as the most likely one. 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen, prompt included (Keskar et al., 2019).
    /// 1 is off.
    pub repetition_penalty: f32,
    /// Key of the random numbers: the same seed, prompt id, sample and position give the same number.
    pub seed: u64,
    /// Longest completion, in tokens. Shortened to what the context has room for. 0 only scores the prompt.
    pub max_new_tokens: usize,
    /// No stop id is drawn, and no stop string heeded, before this many tokens.
    pub min_new_tokens: usize,
    /// Token ids that end a completion, beside the model's own EOS ids.
    pub stop_token_ids: Vec<u32>,
    /// Whether the model's own EOS ids end a completion.
    pub ignore_eos: bool,
    /// Strings that end a completion. Needs a tokenizer in the engine.
    pub stop: Vec<String>,
    /// How many samples of the prompt.
    pub n: u32,
    /// Also report log-probabilities under the unmodified distribution.
    pub raw_logprobs: bool,
    /// Also report the raw log-probability of each prompt token given those before it.
    pub prompt_logprobs: bool,
}

impl Default for SamplingParams {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            seed: 0,
            max_new_tokens: 128,
            min_new_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            stop: Vec::new(),
            n: 1,
            raw_logprobs: false,
            prompt_logprobs: false,
        }
    }
}

impl SamplingParams {
    /// Checks every rule that does not depend on the model.
    ///
    /// # Errors
    /// Names the first field that breaks one.
    pub fn validate(&self) -> Result<(), Error> {
        let (t, penalty) = (self.temperature, self.repetition_penalty);
        rule(t.is_finite() && t >= 0.0, "temperature", "at least 0 and finite", t)?;
        rule(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", "above 0, at most 1", self.top_p)?;
        rule((0.0..=1.0).contains(&self.min_p), "min_p", "from 0 to 1", self.min_p)?;
        rule(
            penalty.is_finite() && penalty > 0.0,
            "repetition_penalty",
            "above 0 and finite",
            penalty,
        )?;
        rule(
            self.max_new_tokens > 0 || self.prompt_logprobs,
            "max_new_tokens",
            "at least 1, or 0 with prompt_logprobs",
            self.max_new_tokens,
        )?;
        rule(
            self.min_new_tokens <= self.max_new_tokens,
            "min_new_tokens",
            format!("at most max_new_tokens ({})", self.max_new_tokens),
            self.min_new_tokens,
        )?;
        rule((1..=65_536).contains(&self.n), "n", "from 1 to 65536", self.n)?;
        let empty = self.stop.iter().any(String::is_empty);
        rule(!empty, "stop", "strings that are not empty", "an empty string")
    }
}

/// Names a request within one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// How to draw tokens.
    pub sampling: Arc<SamplingParams>,
}

impl Request {
    /// Makes a request.
    pub fn new(prompt: Prompt, sampling: impl Into<Arc<SamplingParams>>) -> Self {
        Self { prompt, sampling: sampling.into() }
    }
}

/// What happened to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Raw log-probabilities of prompt tokens 1.., where asked for. Comes before the first token.
    PromptLogprobs {
        /// The request.
        id: RequestId,
        /// One per prompt token but the first (nats).
        logprobs: Vec<f32>,
    },
    /// A token was sampled.
    Token {
        /// The request.
        id: RequestId,
        /// Which of its n samples.
        sample: u32,
        /// The token id.
        token: u32,
        /// Under the distribution it was sampled from (nats).
        logprob: f32,
        /// Under the unmodified distribution, where asked for.
        raw_logprob: Option<f32>,
        /// The weights it was sampled under.
        version: WeightVersion,
    },
    /// A sample has ended; no more of it comes.
    Finished {
        /// The request.
        id: RequestId,
        /// Which of its n samples.
        sample: u32,
        /// Why.
        stop: StopReason,
    },
    /// A request has failed, alone: no more of it comes.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: Error,
    },
}

/// How new weights get into the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefitMode {
    /// The engine reads the tensors where they are; no byte is copied. Needs equal dtypes.
    Alias,
    /// The engine copies (and converts) them into a second buffer, then flips.
    Copy,
}

/// What a refit did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefitReport {
    /// The version now serving.
    pub version: WeightVersion,
    /// How the weights got in.
    pub mode: RefitMode,
    /// From the first check to the commit.
    pub seconds: f64,
    /// Bytes that were copied: 0 for an alias.
    pub bytes: usize,
    /// Number of tensors.
    pub tensors: usize,
    /// BLAKE3 of the weights now serving, where asked for.
    pub checksum: Option<String>,
}

/// What came of comparing the engine's log-probabilities after a refit with the trainer's.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// They agree.
    Agrees,
    /// They do not.
    Differs {
        /// By how much, in words.
        reason: String,
        /// The prompts that were continued greedily, for the backend to try again.
        prompts: Vec<PromptTokens>,
        /// Tokens each was continued by.
        tokens: usize,
    },
}

/// How busy an engine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Sequences that wait for room.
    pub waiting: usize,
    /// Sequences in the running batch.
    pub running: usize,
    /// KV blocks in use.
    pub kv_blocks_used: usize,
    /// KV blocks there are.
    pub kv_blocks_total: usize,
    /// Prompt tokens computed since the start.
    pub prompt_tokens: u64,
    /// Tokens sampled since the start.
    pub generated_tokens: u64,
    /// Engine steps since the start.
    pub engine_steps: u64,
    /// Seconds spent inside engine steps since the start.
    pub busy_seconds: f64,
    /// The weights now serving.
    pub version: WeightVersion,
}

impl Stats {
    /// Returns sampled tokens per second of engine work.
    pub fn tokens_per_second(&self) -> f64 {
        if self.busy_seconds > 0.0 { self.generated_tokens as f64 / self.busy_seconds } else { 0.0 }
    }
}

/// A generation engine, owned by one thread: `Send`, never `Sync`.
pub trait Backend: Send {
    /// Checks a request and takes it in. It is answered by later calls of [`Backend::poll`].
    ///
    /// # Errors
    /// When the request can never be answered: a bad field, a prompt beyond the context, too few KV blocks in all.
    fn submit(&mut self, request: Request) -> Result<RequestId, Error>;

    /// Does at most one engine step and appends what happened. Does nothing when idle.
    ///
    /// # Errors
    /// When the step failed: every request in the engine is lost. After [`Error::Stopped`] the engine is too.
    fn poll(&mut self, events: &mut Vec<Event>) -> Result<(), Error>;

    /// Forgets a request; no more events of it come. Unknown ids are ignored.
    fn cancel(&mut self, id: RequestId);

    /// Says whether a request is waiting or running.
    fn is_busy(&self) -> bool;

    /// Says whether a refit could commit now: nothing is in the middle of being answered.
    fn is_drained(&self) -> bool;

    /// Holds back (`true`) or lets in (`false`) waiting requests, so that the running ones drain before a refit.
    fn hold_admission(&mut self, hold: bool);

    /// Puts new weights in place: all or nothing. Called between polls, so at a token boundary. What is in the middle of
    /// being answered goes on under the new weights, as if they had computed all of it, unless the engine was set up to
    /// keep what the old ones have computed.
    ///
    /// # Errors
    /// Before the commit: the old version goes on serving.
    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error>;

    /// Ends the verification of the latest refit. Backends that can look for the tensors at fault do so here.
    ///
    /// # Errors
    /// [`Error::Canary`] when the verdict is that they differ.
    fn conclude_refit(&mut self, verdict: Verdict) -> Result<(), Error> {
        match verdict {
            Verdict::Agrees => Ok(()),
            Verdict::Differs { reason, .. } => {
                Err(Error::Canary { version: self.stats().version, reason, stale: Vec::new() })
            }
        }
    }

    /// Takes what whoever watches should hear, a line each: how weights get in, that a plan was rebuilt, that this is a
    /// double.
    fn take_notes(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Returns how busy the engine is.
    fn stats(&self) -> Stats;
}
