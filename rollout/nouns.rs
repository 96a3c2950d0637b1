//! Prompts, rollouts and the clock that dates them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// How many refits the policy has been through. Zero is the initial checkpoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct WeightVersion(pub u64);

impl WeightVersion {
    /// Returns how many refits lie between the rollout's weights and the `current` ones.
    pub fn staleness(self, current: Self) -> u64 {
        current.0.saturating_sub(self.0)
    }

    /// Returns the version after one more refit.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for WeightVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Identifies a prompt within a run, in the order prompts were issued.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PromptId(pub u64);

/// Token ids of a prompt. Text never takes their place again: what was sampled after them is what is trained on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptTokens(Arc<[u32]>);

impl PromptTokens {
    /// Returns the ids.
    pub fn ids(&self) -> &[u32] {
        &self.0
    }
}

impl<T: Into<Arc<[u32]>>> From<T> for PromptTokens {
    fn from(ids: T) -> Self {
        Self(ids.into())
    }
}

/// What is sent to the engine, with the name under which the answer comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// Its place in the run's order of prompts; also part of the sampling key.
    pub id: PromptId,
    /// Its tokens, special ones included.
    pub tokens: PromptTokens,
}

/// Why a completion ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model emitted this stop id (an EOS id, or one the request named). It is the completion's last token.
    Token(u32),
    /// The completion's text contains this stop string. The tokens that completed it are kept.
    Text(String),
    /// The limit of new tokens, or the model's context, was reached.
    Length,
    /// The caller walked away.
    Cancelled,
}

impl StopReason {
    /// Says whether the model ended the completion by itself.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Token(_) | Self::Text(_))
    }
}

/// A run of tokens sampled under one version of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSpan {
    /// The weights that produced these tokens.
    pub version: WeightVersion,
    /// How many tokens.
    pub tokens: u32,
}

/// One completion of a prompt, as the engine sampled it.
///
/// Invariant: `rollout_logprobs` is as long as `completion`, `raw_logprobs` too where present, and the spans of
/// `versions` add up to that length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// The prompt it answers.
    pub prompt: Prompt,
    /// Which of the prompt's n samples it is, from 0.
    pub sample: u32,
    /// The sampled token ids, the stop id included.
    pub completion: Vec<u32>,
    /// Log-probability of each token under the distribution it was sampled from: after temperature, penalties and
    /// truncation (nats).
    pub rollout_logprobs: Vec<f32>,
    /// The same under the model's own distribution (temperature 1, nothing cut off), where the request asked for it.
    pub raw_logprobs: Option<Vec<f32>>,
    /// Why it ended.
    pub stop: StopReason,
    /// Which weights sampled which tokens, in order.
    pub versions: Vec<VersionSpan>,
}

impl Rollout {
    /// Returns the oldest weights among its tokens.
    pub fn oldest_version(&self) -> WeightVersion {
        self.versions.iter().map(|span| span.version).min().unwrap_or_default()
    }

    /// Returns the number of tokens of prompt and completion together.
    pub fn tokens(&self) -> usize {
        self.prompt.tokens.ids().len() + self.completion.len()
    }

    /// Returns prompt and completion as one sequence.
    pub fn sequence(&self) -> Vec<u32> {
        [self.prompt.tokens.ids(), &self.completion].concat()
    }
}
