//! Options of self-play fine-tuning.

use serde::{Deserialize, Serialize};

use super::{OptionError, ensure};

/// Options of self-play fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpinOptions {
    /// How often the policy becomes its own opponent. Default 3.
    pub iterations: u64,
}

impl Default for SpinOptions {
    fn default() -> Self {
        Self { iterations: 3 }
    }
}

impl SpinOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        ensure(self.iterations >= 1, "iterations", "at least 1", self.iterations)
    }
}
