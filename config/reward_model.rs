//! `rollforge rm --config`: training a reward model.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    CheckpointConfig, Config, FiniteConfig, LogConfig, MemoryConfig, ModelConfig, StopConfig,
    Violation,
    sections::{Shared, eval_has_data, resolve, within},
};
use crate::{
    data::DataConfig,
    trainer::config::{Device, OptimizerConfig, RewardModelOptions, ScheduleConfig},
};

/// A run of reward model training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardModelConfig {
    /// Where everything about the run is written.
    pub output_dir: PathBuf,
    /// Key of all random numbers. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// Where the trainer computes. Default `cpu`.
    #[serde(default)]
    pub device: Device,
    /// Number of threads. Default 0: every core.
    #[serde(default)]
    pub threads: usize,
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained on: `chosen` and `rejected`, with or without `prompt` and `margin`.
    pub data: DataConfig,
    /// The algorithm's options.
    #[serde(default)]
    pub reward_model: RewardModelOptions,
    /// How weights follow gradients.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// What the run checks of itself.
    #[serde(default)]
    pub invariants: FiniteConfig,
    /// When checkpoints are written.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// What happens when the run is asked to stop.
    #[serde(default)]
    pub stop: StopConfig,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// Whether it may begin where it will not fit.
    #[serde(default)]
    pub memory: MemoryConfig,
}

impl Config for RewardModelConfig {
    fn resolve(&mut self, folder: &Path) {
        resolve(folder, [&mut self.output_dir, &mut self.model.path]);
        resolve(folder, self.data.train.iter_mut().chain(&mut self.data.eval));
        self.checkpoint.resolve("eval/accuracy");
    }

    fn validate(&self) -> Result<(), Violation> {
        let shared = Shared {
            output_dir: &self.output_dir,
            model: &self.model.path,
            seed: self.seed,
            threads: self.threads,
            data: &self.data,
            optimizer: &self.optimizer,
            schedule: &self.schedule,
            checkpoint: &self.checkpoint,
            stop: &self.stop,
            log: &self.log,
        };
        shared.validate()?;
        self.invariants.validate()?;
        within("reward_model", self.reward_model.validate())?;
        eval_has_data("reward_model.eval_every", self.reward_model.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let RewardModelOptions { epochs, batch_size, micro_batch_tokens, .. } = self.reward_model;
        vec![
            format!(
                "optimizer step: {batch_size} pairs, up to 2 x {} tokens each",
                self.data.max_tokens
            ),
            format!("micro-batch: up to {micro_batch_tokens} tokens, as many as the step needs"),
            format!("run: {epochs} x the samples / {batch_size} optimizer steps"),
        ]
    }
}
