//! `rollforge dpo`: preference optimisation without rollouts.

use std::process::ExitCode;

use super::{
    trainer,
    training::{self, TrainingArguments},
};

/// Align a language model with pairs of a chosen and a rejected completion: DPO, IPO, RPO, ORPO, SimPO
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    training::run(&arguments.training, Vec::new(), trainer::dpo)?;
    Ok(ExitCode::SUCCESS)
}
