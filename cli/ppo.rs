//! `rollforge ppo`: proximal policy optimisation.

use std::process::ExitCode;

use super::{
    trainer,
    training::{self, TrainingArguments},
};

/// Train a policy against a reward with PPO
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    training::run(&arguments.training, trainer::ppo)?;
    Ok(ExitCode::SUCCESS)
}
