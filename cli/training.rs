//! What `sft`, `rm` and `ppo` share: a configuration, a run directory, and somebody to watch.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::output::print;
use crate::{
    config::{self, Config},
    run::{Earlier, Observer, Progress},
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
    #[arg(long)]
    clean: bool,
    /// Print the resolved configuration and the batch arithmetic, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Runs a stage under its configuration and prints what it comes to; or only shows the configuration. `more` are
/// overrides that go before those of the arguments. `resume` goes on with an earlier run.
pub(super) fn run<T: Config>(
    (arguments, resume): (&TrainingArguments, bool),
    more: Vec<String>,
    stage: impl FnOnce(&T, Earlier, &mut dyn Observer) -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<()> {
    let config: T = config::load(&arguments.config, &arguments.overrides(more)?)?;
    if arguments.dry_run {
        return Ok(print(config::to_toml(&config).trim_end())?);
    }
    let earlier = match (resume, arguments.clean) {
        (true, _) => Earlier::Resume,
        (false, true) => Earlier::Delete,
        (false, false) => Earlier::Refuse,
    };
    let mut progress = Progress::new(arguments.quiet);
    for line in stage(&config, earlier, &mut progress)? {
        print(line)?;
    }
    Ok(())
}

impl TrainingArguments {
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
