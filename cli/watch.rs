//! `rollforge watch`: a run on a page that follows it.

use std::{path::PathBuf, process::ExitCode};

use super::output::print;
use crate::run::page::{Address, Dashboard, check_run};

/// Show a run on a page that follows it, on this machine only
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The run's directory; the run may be going or over
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where the page is; default 127.0.0.1:7070, or another port where that one is in use
    #[arg(long, value_name = "ADDRESS:PORT")]
    address: Option<Address>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    check_run(&arguments.run)?;
    let dashboard = Dashboard::start(&arguments.run, arguments.address)?;
    print(dashboard.url())?;
    dashboard.wait();
    Ok(ExitCode::SUCCESS)
}
