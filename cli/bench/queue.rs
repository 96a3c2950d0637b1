//! `rollforge bench queue`: how many items a second pass through the rollout queue.

use std::process::ExitCode;

use super::output::OutputArguments;
use crate::run::bench::{QueueBench, queue};

/// Measure how many items a second pass through the rollout queue, from one thread to another
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Items that the trainer takes at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    batch: usize,
    /// Items that pass in each measurement
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    items: usize,
    /// How often each thing is measured, after a first time that does not count
    #[arg(long, default_value_t = 5, value_name = "N")]
    repeats: usize,
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { batch, items, repeats, .. } = *arguments;
    arguments.output.report(|_| queue(&QueueBench { batch, items, repeats }))
}
