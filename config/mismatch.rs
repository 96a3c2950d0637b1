//! The `[mismatch]` section: how far engine and trainer may be apart, and what is done when they are further.

use serde::{Deserialize, Serialize};

use super::Violation;

/// What is done about an iteration whose engine and trainer are too far apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchAction {
    /// Say so.
    #[default]
    Warn,
    /// Say so, and weight the iteration's tokens as `ppo.correction` says.
    Correct,
    /// End the run before anything is trained on them.
    Stop,
}

impl MismatchAction {
    /// Returns its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Correct => "correct",
            Self::Stop => "stop",
        }
    }
}

/// The `[mismatch]` section. Each threshold is named like the `parity/` metric that it bounds; 0 switches it off.
///
/// They are about tokens that the engine sampled with the weights that are to learn. Those of older weights differ by
/// right: theirs is `staleness/ess` alone, which has the threshold of `parity/ess`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MismatchConfig {
    /// What is done: `warn`, `correct` or `stop`. Default `warn`.
    pub action: MismatchAction,
    /// Most mean |difference| of log-probs (nats). Default 0.03: bf16 engines stay near 0.01, and one that drifts
    /// passes it.
    pub dlogp_mean: f64,
    /// Most |difference| of any token's. Default 0, off: the largest of many grows with their number, and
    /// `mult_prob_error`, a mean of exponentials, sees single tokens as well.
    pub dlogp_max: f64,
    /// Most KL(engine || trainer) of a token, by the k3 estimate (nats). Default 0.01.
    pub kl: f64,
    /// Most mean of exp |difference|, at least 1. Default 1.05: beyond it NeMo-RL assumes a bug.
    pub mult_prob_error: f64,
    /// Least effective sample size of the importance weights, as a share of the tokens. Default 0.5.
    pub ess: f64,
}

impl Default for MismatchConfig {
    fn default() -> Self {
        Self {
            action: MismatchAction::Warn,
            dlogp_mean: 0.03,
            dlogp_max: 0.0,
            kl: 0.01,
            mult_prob_error: 1.05,
            ess: 0.5,
        }
    }
}

impl MismatchConfig {
    pub(super) fn validate(&self) -> Result<(), Violation> {
        let most =
            [("dlogp_mean", self.dlogp_mean), ("dlogp_max", self.dlogp_max), ("kl", self.kl)];
        for (key, most) in most {
            let kept = most.is_finite() && most >= 0.0;
            Violation::unless(kept, format!("mismatch.{key}"), "a number from 0 up", most)?;
        }
        let error = self.mult_prob_error;
        Violation::unless(
            error == 0.0 || (error >= 1.0 && error.is_finite()),
            "mismatch.mult_prob_error",
            "a number from 1 up, or 0 for off",
            error,
        )?;
        Violation::unless((0.0..=1.0).contains(&self.ess), "mismatch.ess", "from 0 to 1", self.ess)
    }
}
