//! `rollforge bench table`: reports as tables in Markdown.

use std::{path::PathBuf, process::ExitCode};

use crate::{cli::output::print, run::bench::table};

/// Print the reports of a folder as tables in Markdown
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder of the reports, as --json wrote them
    #[arg(default_value = "benches/results", value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    print(table(&arguments.folder)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
