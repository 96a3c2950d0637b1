//! `rollforge demo`: a language model is aligned before your eyes.

use std::{path::PathBuf, process::ExitCode};

use super::{output::print, trainer};
use crate::run::demo::{DemoData, Sizes};

/// Align a small model from scratch: SFT, reward model and PPO on product reviews from a grammar
///
/// Ends with a status other than 0 if a threshold is missed.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where data, models and runs are written; an earlier demo there is replaced
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub(super) output_dir: PathBuf,
    /// Everything drawn at random follows from it
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Number of threads; 0 takes every core
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// Only write the data, into this folder
    #[arg(long, value_name = "DIR")]
    data_only: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub(super) quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(folder) = &arguments.data_only else { return trainer::demo(arguments) };
    for file in DemoData::new(arguments.seed, Sizes::default()).write(folder)? {
        print(file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
