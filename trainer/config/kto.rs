//! Options of Kahneman-Tversky optimisation.

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one, not_negative, positive};

/// What a labelled completion costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// By how much more probable than the reference it is, less how far the policy has moved (Ethayarajh et al., 2024).
    #[default]
    Kto,
    /// The same without that KL (D'Oosterlinck et al., 2024).
    ApoZeroUnpaired,
}

/// Options of Kahneman-Tversky optimisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KtoOptions {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Completions of one optimizer step. The KL is estimated from as many. Default 64.
    pub batch_size: usize,
    /// Tokens of one forward pass; a longer completion goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,
    /// What a completion costs. Default `kto`.
    pub loss: KtoLoss,
    /// What a log-ratio is worth. The smaller, the farther the policy may move from its reference. Default 0.1.
    pub beta: f64,
    /// Weight of desirable completions. Where one kind is rarer, weights are usually chosen so that weight times number is
    /// about the same for both. Default 1.
    pub desirable_weight: f64,
    /// Weight of undesirable completions. Default 1.
    pub undesirable_weight: f64,
    /// Judge the held-out completions every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for KtoOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            batch_size: 64,
            micro_batch_tokens: 8192,
            loss: KtoLoss::default(),
            beta: 0.1,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            eval_every: 0,
        }
    }
}

impl KtoOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        positive("beta", self.beta)?;
        not_negative("desirable_weight", self.desirable_weight)?;
        not_negative("undesirable_weight", self.undesirable_weight)
    }
}
