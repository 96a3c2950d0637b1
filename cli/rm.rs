//! `rollforge rm`: reward model training.

use std::process::ExitCode;

use super::{
    trainer,
    training::{self, TrainingArguments},
};

/// Train a reward model on pairs of a chosen and a rejected completion
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    training::run(&arguments.training, Vec::new(), trainer::reward_model)?;
    Ok(ExitCode::SUCCESS)
}
