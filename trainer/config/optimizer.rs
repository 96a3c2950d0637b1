//! AdamW's options.

use serde::{Deserialize, Serialize};

use super::{OptionError, ensure, not_negative, positive};

/// How weights follow gradients: AdamW (Loshchilov and Hutter, 2019) with clipping by the global gradient norm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate; the schedule scales it. Default 1e-5. Usual: 2e-5 for SFT, 1e-5 for a reward model, 3e-6 for
    /// PPO; a hundred times that for models of a few million weights. 0 leaves every weight as it is, bit for bit.
    pub lr: f64,
    /// Decay of the first and of the second moment. Default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// Added to the root of the second moment. Default 1e-8; PPO reproductions use 1e-5.
    pub eps: f64,
    /// Decoupled weight decay (times the learning rate), on matrices only. Default 0.
    pub weight_decay: f64,
    /// Gradients are scaled down to this global norm. Default 1; 0 switches clipping off.
    pub max_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self { lr: 1e-5, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, max_grad_norm: 1.0 }
    }
}

impl OptimizerConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        not_negative("lr", self.lr)?;
        for beta in self.betas {
            ensure((0.0..1.0).contains(&beta), "betas", "from 0 to below 1", beta)?;
        }
        positive("eps", self.eps)?;
        not_negative("weight_decay", self.weight_decay)?;
        not_negative("max_grad_norm", self.max_grad_norm)
    }
}
