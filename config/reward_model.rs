//! `rollforge rm --config`: training a reward model.

use std::path::Path;

use super::{
    Config, ModelConfig, OfflineConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, within},
};
use crate::trainer::config::RewardModelOptions;

offline_config! {
    /// A run of reward model training.
    RewardModelConfig {
        reward_model: RewardModelOptions,
        model: ModelConfig,
        /// What it is trained on: `chosen` and `rejected`, with or without `prompt` and `margin`.
        data
    }
}

impl Config for RewardModelConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.checkpoint.resolve("eval/accuracy");
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("reward_model", self.reward_model.validate())?;
        eval_has_data("reward_model.eval_every", self.reward_model.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let RewardModelOptions { epochs, batch_size, micro_batch_tokens, .. } = self.reward_model;
        arithmetic("pairs, up to 2 x", (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
