//! `rollforge bench engine`: how fast the embedded engine generates.

use std::process::ExitCode;

use super::arguments::CommonArguments;
use crate::run::bench::{EngineBench, engine};

/// Measure how fast the embedded engine generates
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
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
    #[command(flatten)]
    common: CommonArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    let options = EngineBench {
        model: common.model.subject(),
        dtype: common.dtype.into(),
        batches: arguments.batches.clone(),
        prompt: arguments.prompt,
        new: arguments.new,
        prefill: arguments.prefill.clone(),
        threads: common.threads,
        turns: common.turns.turns(),
    };
    common.output.report(|progress| engine(&options, progress))
}
