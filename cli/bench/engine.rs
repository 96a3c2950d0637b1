//! `rollforge bench engine`: how fast the embedded engine generates.

use std::process::ExitCode;

use super::{
    arguments::{Format, ModelArguments, TurnArguments},
    output::OutputArguments,
};
use crate::run::bench::{EngineBench, engine};

/// Measure how fast the embedded engine generates
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = Format::Bf16)]
    dtype: Format,
    /// Sequences that are decoded at once, one measurement for each
    #[arg(long = "batch", value_name = "N", value_delimiter = ',', default_values_t = [1, 8, 32, 64])]
    batches: Vec<usize>,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 64, value_name = "N")]
    prompt: usize,
    /// Tokens of each completion
    #[arg(long, default_value_t = 128, value_name = "N")]
    new: usize,
    /// Lengths of single prompts, one measurement for each
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [64, 512])]
    prefill: Vec<usize>,
    /// Number of threads, each on a core; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    #[command(flatten)]
    turns: TurnArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = EngineBench {
        model: arguments.model.subject(),
        dtype: arguments.dtype.into(),
        batches: arguments.batches.clone(),
        prompt: arguments.prompt,
        new: arguments.new,
        prefill: arguments.prefill.clone(),
        threads: arguments.threads,
        turns: arguments.turns.turns(),
    };
    arguments.output.report(|progress| engine(&options, progress))
}
