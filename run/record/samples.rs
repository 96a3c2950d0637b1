//! Some of an iteration's completions, for people to read: `samples/iteration_N.jsonl`.

use anyhow::Result;
use serde::Serialize;

use crate::{model::Tokenizer, rollout::Rollout, trainer::ppo::ScoreStats};

/// One completion.
#[derive(Clone, Debug, Serialize)]
pub(in crate::run) struct SampleRow {
    prompt: String,
    completion: String,
    /// What the reward source says of it.
    score: f32,
    /// What it was trained on: the score after normalization and penalties, less the KL penalty.
    reward: f32,
    /// KL from the reference (nats): the sum of k1 over its tokens.
    kl: f32,
    tokens: usize,
    /// Whether it ended by itself.
    ended: bool,
    /// Which of its prompt's samples it is, from 0.
    sample: u32,
    /// The prompt's place in the order of issue.
    ticket: u64,
    /// Weight versions in order, and how many tokens each sampled.
    versions: Vec<(u64, u32)>,
}

impl SampleRow {
    /// Describes rollout `i` of those that the statistics are of.
    ///
    /// # Errors
    /// When the tokenizer cannot decode it.
    pub(in crate::run) fn new(
        rollouts: &[Rollout],
        i: usize,
        (score, stats): (f32, &ScoreStats),
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let rollout = &rollouts[i];
        let versions = rollout.versions.iter().map(|span| (span.version.0, span.tokens));
        Ok(Self {
            prompt: tokenizer.decode(rollout.prompt.tokens.ids(), false)?,
            completion: tokenizer.decode(&rollout.completion, true)?,
            score,
            reward: stats.rewards[i],
            kl: stats.kls[i],
            tokens: rollout.completion.len(),
            ended: rollout.stop.is_end(),
            sample: rollout.sample,
            ticket: rollout.prompt.id.0,
            versions: versions.collect(),
        })
    }
}

/// Returns which rollouts are written down: the first `most` in the order of issue, in whatever order they arrived.
pub(in crate::run) fn choose(rollouts: &[Rollout], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rollouts.len()).collect();
    order.sort_by_key(|&i| (rollouts[i].prompt.id.0, rollouts[i].sample));
    order.truncate(most);
    order
}
