//! How a refit is verified.

use serde::{Deserialize, Serialize};

use super::{BackendKind, Error, rule};

/// The `[engine.canary]` section: after each refit a few prompts are continued greedily, and the engine's
/// log-probabilities are compared with the trainer's. Stale weights and swapped layouts show here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryConfig {
    /// How many prompts. 0 is off. Default: 4 with TensorRT-LLM, 0 with the embedded engine.
    pub prompts: Option<usize>,
    /// Tokens to continue each by.
    pub tokens: usize,
    /// Largest mean |difference| of log-probabilities (nats). The default suits bf16; f32 agrees to 1e-4.
    pub threshold: f64,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { prompts: None, tokens: 8, threshold: 0.05 }
    }
}

impl CanaryConfig {
    /// Returns how many prompts to check, given the backend.
    pub fn resolve_prompts(&self, backend: BackendKind) -> usize {
        self.prompts.unwrap_or(match backend {
            BackendKind::Native => 0,
            BackendKind::TensorRtLlm => 4,
        })
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// Names the first field that breaks one.
    pub fn validate(&self) -> Result<(), Error> {
        rule(self.tokens >= 1, "canary.tokens", "at least 1", self.tokens)?;
        let threshold = self.threshold;
        rule(threshold > 0.0, "canary.threshold", "above 0", threshold)
    }
}
