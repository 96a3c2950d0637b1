//! Supervised fine-tuning's options.

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one, ensure};
use crate::trainer::batch::Normalization;

/// Options of supervised fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftOptions {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Sequences of one optimizer step. Default 128.
    pub batch_size: usize,
    /// Tokens of one forward pass; a longer sequence goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,
    /// Fill each forward pass with whatever sequences fit best, which takes the fewest passes; otherwise sequences of
    /// similar length go together. Affects speed, not the result. Default true.
    pub packing: bool,
    /// What a token weighs in the loss. Default `token-mean`.
    pub loss_normalization: Normalization,
    /// Measure the held-out loss every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for SftOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            batch_size: 128,
            micro_batch_tokens: 8192,
            packing: true,
            loss_normalization: Normalization::TokenMean,
            eval_every: 0,
        }
    }
}

impl SftOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        ensure(
            self.loss_normalization != Normalization::SeqMeanTokenSumNorm,
            "loss_normalization",
            "one without a constant",
            "seq-mean-token-sum-norm",
        )
    }
}
