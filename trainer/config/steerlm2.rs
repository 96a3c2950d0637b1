//! Options of SteerLM 2.0.

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one};

/// Options of SteerLM 2.0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SteerLm2Options {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Prompts of one optimizer step, each with all its responses. Default 32.
    pub batch_size: usize,
    /// Tokens of one forward pass; a prompt with more in its responses goes alone. Affects memory and speed, not the result.
    /// Default 8192.
    pub micro_batch_tokens: usize,
    /// Judge the held-out prompts every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for SteerLm2Options {
    fn default() -> Self {
        Self { epochs: 1, max_steps: 0, batch_size: 32, micro_batch_tokens: 8192, eval_every: 0 }
    }
}

impl SteerLm2Options {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)
    }
}
