//! `rollforge dpo --config`: preference optimisation without rollouts.

use std::path::Path;

use super::{
    Config, OfflineConfig, PolicyConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, within},
};
use crate::trainer::config::DpoOptions;

offline_config! {
    /// A run of preference optimisation.
    DpoConfig {
        dpo: DpoOptions,
        model: PolicyConfig,
        /// What it is trained on: `chosen` and `rejected`, with or without `prompt`, `margin`, `chosen_reward` and
        /// `rejected_reward`.
        data
    }
}

impl DpoConfig {
    /// Returns the reference's model directory, where the loss has a reference that is not the policy as it starts.
    pub fn other_reference(&self) -> Option<&Path> {
        self.model.other_reference()
    }
}

impl Config for DpoConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        if self.dpo.loss.has_reference() {
            self.model.reference.get_or_insert_with(|| self.model.path.clone());
        }
        let accuracy = if self.data.eval.is_empty() {
            "rewards/accuracies"
        } else {
            "eval/rewards/accuracies"
        };
        self.checkpoint.resolve(accuracy);
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("dpo", self.dpo.validate())?;
        let reference = self.model.reference.as_deref().unwrap_or(Path::new(""));
        let read = self.dpo.loss.has_reference() || self.model.reference.is_none();
        let rule = "unset where dpo.loss has no reference";
        Violation::unless(read, "model.reference", rule, reference.display())?;
        eval_has_data("dpo.eval_every", self.dpo.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let DpoOptions { epochs, batch_size, micro_batch_tokens, .. } = self.dpo;
        arithmetic("pairs, up to 2 x", (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
