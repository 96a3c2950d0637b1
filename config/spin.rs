//! `rollforge spin --config`: self-play fine-tuning.

use std::path::{Path, PathBuf};

use super::{
    Config, DpoConfig, ModelConfig, OfflineConfig, PolicyConfig, SamplingConfig, Violation,
    offline::offline_config, ppo::engine_violation, sections::within,
};
use crate::{
    data::DataConfig,
    engine::EngineConfig,
    trainer::config::{DpoOptions, SpinOptions},
};

offline_config! {
    /// A run of self-play fine-tuning.
    SpinConfig {
        spin: SpinOptions,
        model: ModelConfig,
        /// What it is trained on: `messages`, or `prompt` and `completion`. Nothing is held out.
        data,
        /// How each iteration learns from its pairs. Default `beta`: 0.1.
        dpo: DpoOptions,
        /// How the opponent answers.
        sampling: SamplingConfig,
        /// How the engine is set up.
        engine: EngineConfig
    }
}

impl SpinConfig {
    /// Returns the configuration of an iteration: the policy as the one before left it, against pairs that it has made.
    pub fn iteration(&self, output_dir: PathBuf, policy: PathBuf, pairs: PathBuf) -> DpoConfig {
        let data = DataConfig {
            train: vec![pairs],
            eval: Vec::new(),
            train_rows: None,
            eval_rows: None,
            columns: Default::default(),
            ..self.data.clone()
        };
        let model = PolicyConfig {
            path: policy,
            reference: None,
            dtype: self.model.dtype,
            activation_checkpointing: self.model.activation_checkpointing,
            freeze: self.model.freeze.clone(),
            freeze_layers: self.model.freeze_layers,
        };
        let mut config = DpoConfig {
            output_dir,
            seed: self.seed,
            device: self.device,
            threads: self.threads,
            model,
            data,
            dpo: self.dpo.clone(),
            lora: self.lora.clone(),
            ema: self.ema,
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            invariants: self.invariants,
            checkpoint: self.checkpoint.clone(),
            stop: self.stop,
            log: self.log,
            memory: self.memory,
        };
        config.resolve(Path::new("/"));
        config
    }
}

impl Config for SpinConfig {
    fn resolve(&mut self, folder: &Path) {
        self.resolve_paths(folder);
        self.checkpoint.resolve("rewards/accuracies");
    }

    fn validate(&self) -> Result<(), Violation> {
        self.common().validate()?;
        within("spin", self.spin.validate())?;
        let rule = "unset, for each iteration begins an adapter of its own on the model that the one before merged";
        Violation::unless(self.lora.adapter.is_none(), "lora.adapter", rule, "a folder")?;
        within("dpo", self.dpo.validate())?;
        self.sampling.validate()?;
        self.engine.validate().map_err(engine_violation)?;
        let rule = "unset, for nothing is measured on held-out data";
        let held_out = self.data.eval.first().map_or(Path::new(""), |file| file.as_path());
        Violation::unless(self.data.eval.is_empty(), "data.eval", rule, held_out.display())?;
        let rule = "0, for there are no held-out pairs";
        Violation::unless(self.dpo.eval_every == 0, "dpo.eval_every", rule, self.dpo.eval_every)
    }

    fn arithmetic(&self) -> Vec<String> {
        let DpoOptions { epochs, batch_size, .. } = self.dpo;
        vec![
            format!(
                "iteration: every sample is answered once, then {epochs} epochs of {batch_size} pairs a step"
            ),
            format!("run: {} iterations", self.spin.iterations),
        ]
    }
}
