//! `rollforge sft --config`: supervised fine-tuning.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    CheckpointConfig, Config, FiniteConfig, LogConfig, MemoryConfig, ModelConfig, StopConfig,
    Violation,
    sections::{Shared, eval_has_data, resolve, within},
};
use crate::{
    data::DataConfig,
    trainer::config::{Device, OptimizerConfig, ScheduleConfig, SftOptions},
};

/// A run of supervised fine-tuning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftConfig {
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
    /// What it is trained on: `text`, `messages`, or `prompt` and `completion`.
    pub data: DataConfig,
    /// The algorithm's options.
    #[serde(default)]
    pub sft: SftOptions,
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

impl Config for SftConfig {
    fn resolve(&mut self, folder: &Path) {
        resolve(folder, [&mut self.output_dir, &mut self.model.path]);
        resolve(folder, self.data.train.iter_mut().chain(&mut self.data.eval));
        self.checkpoint.resolve(if self.data.eval.is_empty() { "loss" } else { "eval/loss" });
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
        within("sft", self.sft.validate())?;
        eval_has_data("sft.eval_every", self.sft.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let SftOptions { epochs, batch_size, micro_batch_tokens, .. } = self.sft;
        vec![
            format!(
                "optimizer step: {batch_size} sequences, up to {} tokens each",
                self.data.max_tokens
            ),
            format!("micro-batch: up to {micro_batch_tokens} tokens, as many as the step needs"),
            format!("run: {epochs} x the samples / {batch_size} optimizer steps"),
        ]
    }
}
