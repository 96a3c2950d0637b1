//! `rollforge constitution`: data that a model makes by criticising itself.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};

use super::{output::print, signals, training::folder_override};
use crate::{
    config::{self, ConstitutionConfig},
    run::{Progress, constitution},
};

/// Have a model criticise and revise its answers, or compare them: data for SFT, reward models and DPO
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration, in TOML
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Set a key: constitution.stage=compare; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Where the data are written; the same as --set output_dir=DIR
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Replace data that are there already
    #[arg(long)]
    force: bool,
    /// Print the resolved configuration, and generate nothing
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut overrides = arguments.overrides.clone();
    if let Some(folder) = &arguments.output_dir {
        overrides.push(folder_override("output_dir", folder).context("--output-dir")?);
    }
    let config: ConstitutionConfig = config::load(&arguments.config, &overrides)?;
    if arguments.dry_run {
        print(config::to_toml(&config).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let stop = signals::listen()?;
    let mut progress = Progress::new(arguments.quiet);
    let outcome = constitution::constitution(&config, &mut progress, (&stop, arguments.force))?;
    for (path, rows) in &outcome.files {
        print(format_args!("{}: {rows} rows", path.display()))?;
    }
    if !outcome.without_pair.is_empty() {
        let why = constitution::described(&outcome.without_pair);
        print(format_args!("prompts without a pair: {why}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
