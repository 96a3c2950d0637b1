//! `rollforge steerlm2 --config`: SteerLM 2.0.

use std::path::Path;

use super::{
    Config, ModelConfig, OfflineConfig, Violation,
    offline::{arithmetic, offline_config},
    sections::{eval_has_data, within},
};
use crate::trainer::config::SteerLm2Options;

offline_config! {
    /// A run of SteerLM 2.0.
    SteerLm2Config {
        steerlm2: SteerLm2Options,
        model: ModelConfig,
        /// What it is trained on: `prompt`, attributes included, and `responses`.
        data
    }
}

impl Config for SteerLm2Config {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.checkpoint.resolve(if self.data.eval.is_empty() {
            "distance"
        } else {
            "eval/distance"
        });
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("steerlm2", self.steerlm2.validate())?;
        eval_has_data("steerlm2.eval_every", self.steerlm2.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let SteerLm2Options { epochs, batch_size, micro_batch_tokens, .. } = self.steerlm2;
        let samples = "prompts with their responses, up to";
        arithmetic(samples, (epochs, batch_size, micro_batch_tokens), &self.data)
    }
}
