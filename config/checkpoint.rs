//! The `[checkpoint]` and `[stop]` sections: what a run leaves to go on from.

use serde::{Deserialize, Serialize};

use super::Violation;

/// The `[checkpoint]` section. The last state is always written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Write a checkpoint after so many optimizer steps (PPO: iterations). Default 0: only at the end.
    pub every: u64,
    /// Keep so many of the latest ones. Default 2; 0 keeps all.
    pub keep: usize,
    /// Keep besides so many of those whose `metric` is best. Default 0.
    pub keep_best: usize,
    /// End the run early once so many checkpoints in a row are no better than the best before them: `checkpoint.every` times
    /// as many steps. Default 0: never. Needs `keep_best`.
    pub patience: u64,
    /// The metric that says which are best. Default: `eval/scores` for PPO (`objective/scores` where no prompts are held out), `eval/accuracy` for reward models,
    /// `eval/rewards/accuracies` for preference optimisation, `eval/loss` for SFT (of the two: the same without `eval/` where
    /// no data are held out). A checkpoint of a step at which it was not measured is not among the best.
    pub metric: Option<String>,
    /// Whether the largest or the smallest values are best: `max` or `min`. Default: as is usual for the metric.
    pub mode: Option<Best>,
}

/// Which values of a metric are best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Best {
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

/// Metrics whose largest values are best.
const LARGE: [&str; 12] = [
    "eval/scores",
    "objective/scores",
    "objective/rlhf_reward",
    "objective/non_score_reward",
    "accuracy",
    "eval/accuracy",
    "rewards/accuracies",
    "eval/rewards/accuracies",
    "rewards/margins",
    "eval/rewards/margins",
    "mean_token_accuracy",
    "eval/mean_token_accuracy",
];
/// Metrics whose smallest values are best.
const SMALL: [&str; 7] = [
    "loss",
    "eval/loss",
    "eval/perplexity",
    "distance",
    "eval/distance",
    "objective/kl",
    "loss/value_avg",
];

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 0, keep: 2, keep_best: 0, patience: 0, metric: None, mode: None }
    }
}

impl CheckpointConfig {
    /// Spells out the metric, which is `usual` where the file names none, and which of its values are best.
    pub(super) fn resolve(&mut self, usual: &str) {
        let metric = self.metric.get_or_insert_with(|| usual.to_owned());
        self.mode = self.mode.or_else(|| usual_mode(metric));
    }

    pub(super) fn validate(&self) -> Result<(), Violation> {
        let unknown = self.metric.as_deref().filter(|metric| usual_mode(metric).is_none());
        Violation::unless(
            unknown.is_none() || self.mode.is_some(),
            "checkpoint.mode",
            format!(
                "\"max\" or \"min\" where checkpoint.metric is {:?}",
                unknown.unwrap_or_default()
            ),
            "none",
        )?;
        Violation::unless(
            self.patience == 0 || (self.keep_best > 0 && self.every > 0),
            "checkpoint.patience",
            "0 unless checkpoint.every and checkpoint.keep_best are at least 1",
            self.patience,
        )
    }
}

fn usual_mode(metric: &str) -> Option<Best> {
    if LARGE.contains(&metric) {
        return Some(Best::Max);
    }
    SMALL.contains(&metric).then_some(Best::Min)
}

/// The `[stop]` section: what SIGINT (Ctrl-C) and SIGTERM do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StopConfig {
    /// How long the step (PPO: iteration) under way may go on before it is abandoned. Default 60.
    pub deadline_seconds: f64,
}

impl Default for StopConfig {
    fn default() -> Self {
        Self { deadline_seconds: 60.0 }
    }
}

impl StopConfig {
    pub(super) fn validate(self) -> Result<(), Violation> {
        Violation::unless(
            self.deadline_seconds > 0.0 && self.deadline_seconds <= 86_400.0,
            "stop.deadline_seconds",
            "above 0 and at most 86400",
            self.deadline_seconds,
        )
    }
}
