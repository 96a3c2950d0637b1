//! `rollforge bench queue`: how many items a second pass through the rollout queue.

use std::process::ExitCode;

use super::output::OutputArguments;
use crate::run::bench::{QueueBench, queue};

/// Measure how many items a second pass through the rollout queue, from one thread to another
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Items that the trainer takes at once, one measurement for each
    #[arg(long = "batch", value_name = "N", value_delimiter = ',', default_values_t = [64, 1024])]
    batches: Vec<usize>,
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
    let options = QueueBench {
        batches: arguments.batches.clone(),
        items: arguments.items,
        repeats: arguments.repeats,
    };
    arguments.output.report(|progress| queue(&options, progress))
}
