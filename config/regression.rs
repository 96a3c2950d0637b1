//! `rollforge regression --config`: training a reward model that rates several attributes.

use std::path::Path;

use super::{
    Config, ModelConfig, OfflineConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, within},
};
use crate::trainer::config::RegressionOptions;

offline_config! {
    /// A run of regression over attributes.
    RegressionConfig {
        regression: RegressionOptions,
        model: ModelConfig,
        /// What it is trained on: `prompt` and `completion`, or `text`, or `messages`, with a column for each attribute.
        data
    }
}

impl RegressionConfig {
    /// Says what is rated.
    pub(crate) fn rate(&mut self, attributes: Vec<String>) {
        self.data.columns.attributes.clone_from(&attributes);
        self.regression.attributes = attributes;
    }
}

impl Config for RegressionConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.rate(self.regression.attributes.clone());
        self.checkpoint.resolve(if self.data.eval.is_empty() { "loss" } else { "eval/loss" });
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("regression", self.regression.validate())?;
        eval_has_data("regression.eval_every", self.regression.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let RegressionOptions { epochs, batch_size, micro_batch_tokens, .. } = self.regression;
        arithmetic("completions, up to", (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
