//! `rollforge kto --config`: preference optimisation from completions that are each good or bad.

use std::path::Path;

use super::{
    Config, OfflineConfig, PolicyConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, within},
};
use crate::trainer::config::KtoOptions;

offline_config! {
    /// A run of Kahneman-Tversky optimisation.
    KtoConfig {
        kto: KtoOptions,
        model: PolicyConfig,
        /// What it is trained on: `prompt`, `completion` and `label`.
        data
    }
}

impl Config for KtoConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.model.reference.get_or_insert_with(|| self.model.path.clone());
        self.checkpoint.resolve(if self.data.eval.is_empty() { "loss" } else { "eval/loss" });
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("kto", self.kto.validate())?;
        eval_has_data("kto.eval_every", self.kto.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let KtoOptions { epochs, batch_size, micro_batch_tokens, .. } = self.kto;
        arithmetic("completions, up to", (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
