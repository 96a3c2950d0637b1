//! The `[lora]` and `[ema]` sections, and what stays frozen.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Violation, sections::resolve};
use crate::{
    model::{Lora, LoraTarget},
    trainer::config::Freeze,
};

/// The `[lora]` section: low-rank matrices learn beside the model's own, which stay as they are (Hu et al., 2021).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank of the matrices. Default 0: no adapter, the model itself learns.
    pub rank: usize,
    /// What they add is multiplied by this over the rank. Default 16.
    pub alpha: f64,
    /// Divide `alpha` by the rank's root instead (Kalajdzievski, 2023). Default false.
    pub rslora: bool,
    /// Beside which matrices: `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`, or `all-linear`
    /// for each of them. Default `["all-linear"]`.
    pub target_modules: Vec<LoraTarget>,
    /// A directory in PEFT's format to start from. Rank, alpha and matrices are then that adapter's. Default: none; the
    /// adapter starts as one that changes nothing.
    pub adapter: Option<PathBuf>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            rank: 0,
            alpha: 16.0,
            rslora: false,
            target_modules: vec![LoraTarget::AllLinear],
            adapter: None,
        }
    }
}

impl LoraConfig {
    /// Says whether an adapter learns, rather than the model.
    pub fn is_on(&self) -> bool {
        self.rank > 0 || self.adapter.is_some()
    }

    /// Returns the adapter that these options describe, where one learns that is new.
    pub fn described(&self) -> Option<Lora> {
        (self.rank > 0).then(|| Lora {
            rank: self.rank,
            alpha: self.alpha,
            dropout: 0.0,
            rslora: self.rslora,
            targets: self.target_modules.clone(),
        })
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        resolve(folder, self.adapter.as_mut());
    }

    pub(super) fn validate(&self, freeze: &Freeze) -> Result<(), Violation> {
        let rule = "from 0 to 65536";
        Violation::unless(self.rank <= 1 << 16, "lora.rank", rule, self.rank)?;
        let rule = "0 where lora.adapter names one, which has a rank";
        Violation::unless(self.rank == 0 || self.adapter.is_none(), "lora.rank", rule, self.rank)?;
        let is_usable = self.alpha.is_finite() && self.alpha > 0.0;
        Violation::unless(is_usable, "lora.alpha", "above 0", self.alpha)?;
        let rule = "at least one matrix";
        Violation::unless(!self.target_modules.is_empty(), "lora.target_modules", rule, "[]")?;
        let rule = "unset with [lora], under which no weight of the model learns";
        let both = |is_set: bool| self.is_on() && is_set;
        Violation::unless(!both(!freeze.names.is_empty()), "model.freeze", rule, "names")?;
        Violation::unless(!both(freeze.layers > 0), "model.freeze_layers", rule, freeze.layers)
    }
}

/// The `[ema]` section: an average of the weights as they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmaConfig {
    /// After each optimizer step the average is `decay` of itself and the rest of the weights. Default 0: there is none.
    pub decay: f64,
}

impl EmaConfig {
    pub(super) fn validate(self) -> Result<(), Violation> {
        Violation::unless(
            (0.0..1.0).contains(&self.decay),
            "ema.decay",
            "from 0 to below 1",
            self.decay,
        )
    }
}
