//! `rollforge dpo --config`: preference optimisation without rollouts.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    CheckpointConfig, Config, FiniteConfig, LogConfig, MemoryConfig, PolicyConfig, StopConfig,
    Violation,
    sections::{Shared, eval_has_data, resolve, within},
};
use crate::{
    data::DataConfig,
    trainer::config::{Device, DpoOptions, OptimizerConfig, ScheduleConfig},
};

/// A run of preference optimisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DpoConfig {
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
    /// What is trained, and its reference.
    pub model: PolicyConfig,
    /// What it is trained on: `chosen` and `rejected`, with or without `prompt`, `margin`, `chosen_reward` and
    /// `rejected_reward`.
    pub data: DataConfig,
    /// The algorithm's options.
    #[serde(default)]
    pub dpo: DpoOptions,
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

impl DpoConfig {
    /// Returns the reference's model directory, where the loss has a reference that is not the policy as it starts.
    pub fn other_reference(&self) -> Option<&Path> {
        self.model.reference.as_deref().filter(|path| *path != self.model.path)
    }
}

impl Config for DpoConfig {
    fn resolve(&mut self, folder: &Path) {
        resolve(folder, [&mut self.output_dir, &mut self.model.path]);
        resolve(folder, self.model.reference.as_mut());
        resolve(folder, self.data.train.iter_mut().chain(&mut self.data.eval));
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
        within("dpo", self.dpo.validate())?;
        let reference = self.model.reference.as_deref().unwrap_or(Path::new(""));
        let read = self.dpo.loss.has_reference() || self.model.reference.is_none();
        let rule = "unset where dpo.loss has no reference";
        Violation::unless(read, "model.reference", rule, reference.display())?;
        eval_has_data("dpo.eval_every", self.dpo.eval_every, &self.data)
    }

    fn arithmetic(&self) -> Vec<String> {
        let DpoOptions { epochs, batch_size, micro_batch_tokens, .. } = self.dpo;
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
