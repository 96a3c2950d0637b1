//! The `[sampling]` section.

use serde::{Deserialize, Serialize};

use super::Violation;
use crate::engine::SamplingParams;

/// How completions are sampled in a run; the run adds seed and number of samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplingConfig {
    /// Divides the logits. Default 1.
    pub temperature: f32,
    /// Keeps the k most likely tokens. Default 0: all.
    pub top_k: usize,
    /// Keeps the smallest set of most likely tokens whose probability reaches p. Default 1: all.
    pub top_p: f32,
    /// Keeps tokens at least this share as likely as the most likely one. Default 0: all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen. Default 1: off.
    pub repetition_penalty: f32,
    /// Longest completion, in tokens. Default 128.
    pub max_new_tokens: usize,
    /// No stop id before this many tokens. Default 0.
    pub min_new_tokens: usize,
    /// Token ids that end a completion, beside the model's own EOS ids.
    pub stop_token_ids: Vec<u32>,
    /// Strings that end a completion.
    pub stop: Vec<String>,
    /// Go on past the model's own EOS ids. Default false.
    pub ignore_eos: bool,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        let params = SamplingParams::default();
        Self {
            temperature: params.temperature,
            top_k: params.top_k,
            top_p: params.top_p,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            max_new_tokens: params.max_new_tokens,
            min_new_tokens: params.min_new_tokens,
            stop_token_ids: params.stop_token_ids,
            stop: params.stop,
            ignore_eos: params.ignore_eos,
        }
    }
}

impl SamplingConfig {
    /// Returns what the engine is asked for.
    pub fn params(&self, seed: u64, samples: u32) -> SamplingParams {
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            stop_token_ids: self.stop_token_ids.clone(),
            stop: self.stop.clone(),
            ignore_eos: self.ignore_eos,
            seed,
            n: samples,
            ..SamplingParams::default()
        }
    }

    /// Says whether tokens are sampled from another distribution than the model's own at this temperature.
    pub fn cuts_off(&self) -> bool {
        self.top_k > 0
            || self.top_p < 1.0
            || self.min_p > 0.0
            || self.repetition_penalty != 1.0
            || self.min_new_tokens > 0
    }

    /// Checks every range.
    ///
    /// # Errors
    /// Names the first key out of its range.
    pub fn validate(&self) -> Result<(), Violation> {
        let number = |holds: bool, key: &str, rule: &str, got: f32| {
            Violation::unless(holds, format!("sampling.{key}"), rule, got)
        };
        let finite = self.temperature.is_finite() && self.temperature >= 0.0;
        number(finite, "temperature", "a number from 0 up", self.temperature)?;
        let share = self.top_p > 0.0 && self.top_p <= 1.0;
        number(share, "top_p", "above 0 and at most 1", self.top_p)?;
        number((0.0..=1.0).contains(&self.min_p), "min_p", "from 0 to 1", self.min_p)?;
        let penalty = self.repetition_penalty;
        let positive = penalty.is_finite() && penalty > 0.0;
        number(positive, "repetition_penalty", "a number above 0", penalty)?;
        let most = self.max_new_tokens;
        Violation::unless(most >= 1, "sampling.max_new_tokens", "at least 1", most)?;
        Violation::unless(
            self.min_new_tokens <= most,
            "sampling.min_new_tokens",
            format!("at most max_new_tokens ({most})"),
            self.min_new_tokens,
        )?;
        let stops = !self.stop.iter().any(String::is_empty);
        Violation::unless(stops, "sampling.stop", "strings that are not empty", "\"\"")
    }
}
