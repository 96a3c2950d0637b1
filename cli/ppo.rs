//! `rollforge ppo`: proximal policy optimisation.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::ValueEnum;

use super::{
    backend_name::BackendName,
    trainer,
    training::{self, TrainingArguments, folder_override},
};

/// Train a policy against a reward with PPO
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
    /// What generates; the same as --set engine.backend=B
    #[arg(long, value_enum, value_name = "B")]
    backend: Option<BackendName>,
    /// The TensorRT-LLM engine, as `rollforge engine build` writes it; the same as --set
    /// engine.tensorrt_llm.engine_dir=DIR
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut overrides = Vec::new();
    if let Some(backend) = arguments.backend.and_then(|backend| backend.to_possible_value()) {
        overrides.push(format!("engine.backend={}", backend.get_name()));
    }
    if let Some(folder) = &arguments.engine {
        let key = "engine.tensorrt_llm.engine_dir";
        overrides.push(folder_override(key, folder).context("--engine")?);
    }
    training::run(&arguments.training, overrides, trainer::ppo)
}
