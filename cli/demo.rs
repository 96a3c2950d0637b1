//! `rollforge demo`: a language model is aligned before your eyes.

use std::{path::PathBuf, process::ExitCode};

use super::output::print;
use crate::run::demo::{DemoData, Sizes};

/// Align a small model from scratch: SFT, reward model, PPO on product reviews from a grammar
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only write the data into this folder
    #[arg(long, value_name = "DIR")]
    data_only: PathBuf,
    /// Everything drawn at random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let files = DemoData::new(arguments.seed, Sizes::default()).write(&arguments.data_only)?;
    for file in files {
        print(file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
