//! Reward model training's options.

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one, not_negative};

/// Options of training a Bradley-Terry reward model on preference pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModelOptions {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Pairs of one optimizer step. Default 64.
    pub batch_size: usize,
    /// Tokens of one forward pass; a longer pair goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,
    /// Ask the chosen score to lie above the rejected one by the pair's `margin`, where it has one. Default true.
    pub use_margin: bool,
    /// Weight of `(chosen + rejected)^2`, which keeps scores around 0 (Eisenstein et al., 2023). Default 0: off; usual 0.01.
    pub center_coef: f64,
    /// Measure the held-out accuracy every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for RewardModelOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            batch_size: 64,
            micro_batch_tokens: 8192,
            use_margin: true,
            center_coef: 0.0,
            eval_every: 0,
        }
    }
}

impl RewardModelOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        not_negative("center_coef", self.center_coef)
    }
}
