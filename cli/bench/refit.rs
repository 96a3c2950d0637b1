//! `rollforge bench refit`: how long new weights take into an engine.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;

use super::{arguments::ModelArguments, output::OutputArguments};
use crate::{
    cli::backend_name::BackendName,
    engine::RefitMode,
    run::bench::{RefitBench, refit},
};

/// Measure how long new weights take into an engine
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What takes the weights
    #[arg(long, value_enum, default_value_t = BackendName::Native, value_name = "B")]
    backend: BackendName,
    #[command(flatten)]
    model: ModelArguments,
    /// The TensorRT-LLM engine directory
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Measure the contract double; without --engine, one is made
    #[arg(long)]
    double: bool,
    /// How the weights get in: read where they are, as in a PPO run, or copied. Default: both with the embedded engine
    #[arg(long = "mode", value_enum)]
    modes: Vec<Mode>,
    /// Number of threads, each on a core; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// How often, after the first time
    #[arg(long, default_value_t = 10, value_name = "N")]
    repeats: usize,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Alias,
    Copy,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mode = |mode: &Mode| match mode {
        Mode::Alias => RefitMode::Alias,
        Mode::Copy => RefitMode::Copy,
    };
    let options = RefitBench {
        backend: arguments.backend.kind(),
        model: arguments.model.named(),
        engine_dir: arguments.engine.clone(),
        double: arguments.double,
        modes: arguments.modes.iter().map(mode).collect(),
        threads: arguments.threads,
        repeats: arguments.repeats,
    };
    arguments.output.report(|progress| refit(&options, progress))
}
