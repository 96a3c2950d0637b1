//! What of a model learns.

use super::{Error, Result};
use crate::{
    model::{Head, Lora, ModelSpec},
    rollout::Weights,
    trainer::config::Freeze,
};

/// What of a model learns: by default, every parameter.
///
/// What does not learn has no gradient, no moments and no master weights: it is held in the format of the forward pass
/// alone.
#[derive(Clone, Debug, Default)]
pub struct Learns {
    /// An adapter and, where there is one, the score head; nothing else. Its tensors are those of [`Lora::tensors`], and
    /// may have `score.weight` beside them, which then takes the place of the model's.
    pub adapter: Option<(Lora, Weights)>,
    /// What stays as it is; of no account with an adapter.
    pub freeze: Freeze,
}

impl Learns {
    /// Returns the adapter, where there is one.
    pub fn lora(&self) -> Option<&Lora> {
        self.adapter.as_ref().map(|(lora, _)| lora)
    }

    /// Checks that each pattern names a parameter, and that there are so many layers.
    pub(super) fn check(&self, spec: &ModelSpec) -> Result<()> {
        let (tensors, freeze) = (spec.tensors(), &self.freeze);
        let found = |pattern: &str| tensors.iter().any(|t| Freeze::matches(pattern, &t.name));
        if let Some(pattern) = freeze.names.iter().find(|pattern| !found(pattern)) {
            return Err(Error::input("frozen parameters", "names of the model's", pattern));
        }
        if freeze.layers > spec.num_layers {
            let rule = format!("at most the model's {}", spec.num_layers);
            return Err(Error::input("frozen layers", rule, freeze.layers));
        }
        if self.adapter.is_none() && tensors.iter().all(|tensor| freeze.keeps(&tensor.name)) {
            return Err(Error::input("frozen parameters", "some of the model's", "all of them"));
        }
        Ok(())
    }

    /// Says whether a parameter of the model itself learns.
    pub(super) fn learns(&self, name: &str) -> bool {
        match self.adapter {
            Some(_) => name == Head::SCORE,
            None => !self.freeze.keeps(name),
        }
    }
}
