//! `rollforge sft`: supervised fine-tuning.

use std::process::ExitCode;

use super::{
    trainer,
    training::{self, TrainingArguments},
};

/// Fine-tune a language model on texts, conversations, or prompts with completions
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    training: TrainingArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    training::run(&arguments.training, Vec::new(), trainer::sft)?;
    Ok(ExitCode::SUCCESS)
}
