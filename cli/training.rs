//! What the commands that train share: a configuration, a run directory, and somebody to watch.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

use super::{
    dashboard::{DashboardArguments, RunConfig},
    output::print,
    signals,
};
use crate::{
    config,
    run::{Earlier, Launch, Progress},
};

#[derive(Debug, clap::Args)]
pub(super) struct TrainingArguments {
    /// The configuration, in TOML
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Set a key: optimizer.lr=1e-5; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Where everything about the run is written; the same as --set output_dir=DIR
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// The same as --set seed=N
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The same as --set threads=N; 0 takes every core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Delete an earlier run in the same folder first
    #[arg(long, conflicts_with = "resume")]
    clean: bool,
    /// Go on where the latest checkpoint in the output directory stood, or from that of a step; what came after it is
    /// forgotten
    #[arg(long, value_name = "STEP", num_args = 0..=1, require_equals = true, value_parser = step)]
    resume: Option<Option<u64>>,
    /// Print the resolved configuration and the batch arithmetic, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    dashboard: DashboardArguments,
}

/// Runs a stage under its configuration and prints what it comes to; or only shows the configuration. `more` are
/// overrides that go before those of the arguments.
pub(super) fn run<T: RunConfig>(
    arguments: &TrainingArguments,
    more: Vec<String>,
    stage: impl FnOnce(&T, Launch<'_>) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<ExitCode> {
    let config: T = config::load(&arguments.config, &arguments.overrides(more)?)?;
    if arguments.dry_run {
        print(config::to_toml(&config).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let launch = Launch {
        earlier: arguments.earlier(),
        observer: &mut Progress::new(arguments.quiet),
        stop: signals::listen()?,
    };
    let _until_the_end = arguments.dashboard.serve(&config)?;
    for line in stage(&config, launch)? {
        print(line)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads a step, or the name of its checkpoint.
fn step(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("step_").unwrap_or(text);
    number.parse().map_err(|_| "must be a step, such as 4 or step_4".to_owned())
}

impl TrainingArguments {
    fn earlier(&self) -> Earlier {
        match (self.resume, self.clean) {
            (Some(Some(step)), _) => Earlier::ResumeFrom(step),
            (Some(None), _) => Earlier::Resume,
            (None, true) => Earlier::Delete,
            (None, false) => Earlier::Refuse,
        }
    }

    /// Returns all overrides; the last one of a key counts.
    fn overrides(&self, mut overrides: Vec<String>) -> anyhow::Result<Vec<String>> {
        overrides.extend_from_slice(&self.overrides);
        if let Some(folder) = &self.output_dir {
            overrides.push(folder_override("output_dir", folder).context("--output-dir")?);
        }
        overrides.extend(self.seed.map(|seed| format!("seed={seed}")));
        overrides.extend(self.threads.map(|threads| format!("threads={threads}")));
        Ok(overrides)
    }
}

/// Sets a key to a folder as seen from here; paths in a configuration are as seen from its file.
pub(super) fn folder_override(key: &str, folder: &Path) -> std::io::Result<String> {
    let folder = std::path::absolute(folder)?;
    Ok(format!("{key}={}", toml::Value::from(folder.display().to_string())))
}
