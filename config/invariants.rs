//! The `[invariants]` section: what a run checks of itself, and what follows where it does not hold.

use serde::{Deserialize, Serialize};

use super::Violation;

/// What follows where an invariant is broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBreak {
    /// Nothing: it is not looked at.
    Off,
    /// A line in the journal; the run goes on.
    Warn,
    /// The run ends with an error, and leaves its last whole state as a checkpoint.
    #[default]
    Stop,
}

/// The `[invariants]` section of `sft` and `rm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FiniteConfig {
    /// Loss and gradient of each optimizer step are finite, and so are the weights that a checkpoint gets. Where they
    /// are not, the step is skipped in any case. Default `stop`.
    pub finite: OnBreak,
    /// Stop after so many skipped optimizer steps in a row. Default 3.
    pub max_skipped_steps: u64,
}

impl Default for FiniteConfig {
    fn default() -> Self {
        Self { finite: OnBreak::Stop, max_skipped_steps: 3 }
    }
}

impl FiniteConfig {
    pub(super) fn validate(&self) -> Result<(), Violation> {
        let most = self.max_skipped_steps;
        Violation::unless(most >= 1, "invariants.max_skipped_steps", "at least 1", most)
    }
}

/// The `[invariants]` section of `ppo`: each is `off`, `warn` or `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvariantsConfig {
    /// The policy's ratio is 1 at each iteration's first optimizer step. Default `stop` where `ppo.old_logprobs` is
    /// `recompute`, which makes it exact; `off` where the ratio starts from the engine's numbers.
    pub ratio: Option<OnBreak>,
    /// How far a ratio may be from 1 then. Default 0.
    pub ratio_tolerance: f64,
    /// The policy's log-probs are the reference's until its first optimizer step. Default `stop` where the reference is
    /// the policy's own directory and `ppo.old_logprobs` is `recompute`; `off` otherwise.
    pub kl: Option<OnBreak>,
    /// Every token of every completion is trained on exactly once in an epoch, with the weight it should have, and has
    /// a weight version. Default `stop`.
    pub masks: OnBreak,
    /// As in [`FiniteConfig`]. Default `stop`.
    pub finite: OnBreak,
    /// As in [`FiniteConfig`]. Default 3.
    pub max_skipped_steps: u64,
    /// Rewards are finite, and their sum over a completion lies within the range below. One that is not finite stops
    /// the run in any case. Default `stop`.
    pub rewards: OnBreak,
    /// The least that a completion can earn. Default: no bound.
    pub reward_min: Option<f64>,
    /// The most that a completion can earn. Default: no bound.
    pub reward_max: Option<f64>,
    /// Every prompt that was issued is trained on once, with all its samples. Default `stop`.
    pub ledger: OnBreak,
}

impl Default for InvariantsConfig {
    fn default() -> Self {
        let FiniteConfig { finite, max_skipped_steps } = FiniteConfig::default();
        Self {
            ratio: None,
            ratio_tolerance: 0.0,
            kl: None,
            masks: OnBreak::Stop,
            finite,
            max_skipped_steps,
            rewards: OnBreak::Stop,
            reward_min: None,
            reward_max: None,
            ledger: OnBreak::Stop,
        }
    }
}

impl InvariantsConfig {
    /// Returns what it has in common with other runs.
    pub fn finite(&self) -> FiniteConfig {
        FiniteConfig { finite: self.finite, max_skipped_steps: self.max_skipped_steps }
    }

    /// Spells out what follows from the rest of the configuration: whether the ratio is exactly 1 at first, and whether
    /// the reference is the policy that training starts from.
    pub(super) fn resolve(&mut self, exact_ratio: bool, own_reference: bool) {
        let stop_if = |exact| if exact { OnBreak::Stop } else { OnBreak::Off };
        self.ratio.get_or_insert(stop_if(exact_ratio));
        self.kl.get_or_insert(stop_if(exact_ratio && own_reference));
    }

    pub(super) fn validate(&self) -> Result<(), Violation> {
        self.finite().validate()?;
        let tolerance = self.ratio_tolerance;
        Violation::unless(
            tolerance >= 0.0 && tolerance.is_finite(),
            "invariants.ratio_tolerance",
            "at least 0 and finite",
            tolerance,
        )?;
        let (least, most) = self.reward_range();
        Violation::unless(
            least <= most,
            "invariants.reward_max",
            format!("at least invariants.reward_min ({least})"),
            most,
        )
    }

    /// Returns the least and the most that a completion can earn.
    pub fn reward_range(&self) -> (f64, f64) {
        (self.reward_min.unwrap_or(f64::NEG_INFINITY), self.reward_max.unwrap_or(f64::INFINITY))
    }
}
