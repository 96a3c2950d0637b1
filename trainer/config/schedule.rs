//! The learning rate's course.

use serde::{Deserialize, Serialize};

use super::{OptionError, ensure, share};

/// What the learning rate does after its warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Stays.
    #[default]
    Constant,
    /// Falls in a straight line.
    Linear,
    /// Falls along half a cosine.
    Cosine,
}

/// How the learning rate changes over the optimizer steps of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// What it does after the warm-up. Default `constant`.
    pub kind: ScheduleKind,
    /// Optimizer steps over which it rises from 0. Default 0.
    pub warmup_steps: u64,
    /// The same as a share of all optimizer steps; used where `warmup_steps` is 0. Default 0.
    pub warmup_ratio: f64,
    /// Where it ends, as a share of the peak. Default 0. Constant schedules do not use it.
    pub min_lr_ratio: f64,
}

impl ScheduleConfig {
    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        share("warmup_ratio", self.warmup_ratio)?;
        share("min_lr_ratio", self.min_lr_ratio)?;
        ensure(
            self.warmup_steps == 0 || self.warmup_ratio == 0.0,
            "warmup_ratio",
            "0 where warmup_steps is given",
            self.warmup_ratio,
        )
    }
}
