//! `rollforge sft --config`: supervised fine-tuning.

use std::path::Path;

use super::{
    Config, ModelConfig, OfflineConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, within},
};
use crate::trainer::config::SftOptions;

offline_config! {
    /// A run of supervised fine-tuning.
    SftConfig {
        sft: SftOptions,
        model: ModelConfig,
        /// What it is trained on: `text`, `messages`, or `prompt` and `completion`.
        data
    }
}

impl Config for SftConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.checkpoint.resolve(if self.data.eval.is_empty() { "loss" } else { "eval/loss" });
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("sft", self.sft.validate())?;
        eval_has_data("sft.eval_every", self.sft.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let SftOptions { epochs, batch_size, micro_batch_tokens, .. } = self.sft;
        arithmetic("sequences, up to", (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
