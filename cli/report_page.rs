//! `rollforge report`: a run on one page.

use std::{path::PathBuf, process::ExitCode};

use super::output::print;
use crate::run::page::{Report, check_run};

/// Write a run's report: one page that needs nothing else
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run's directory; the run may be going or over
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where the page is written; default report.html in the run's directory
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    check_run(&arguments.run)?;
    let output = arguments.output.clone().unwrap_or_else(|| arguments.run.join("report.html"));
    Report::new(&arguments.run).write(&output)?;
    print(output.display())?;
    Ok(ExitCode::SUCCESS)
}
