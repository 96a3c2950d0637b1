//! `rollforge bench`: measurements on this machine.

mod engine;
mod refit;

use std::process::ExitCode;

use clap::Subcommand;

/// Measure how fast pieces of a run are on this machine
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Engine(engine::Arguments),
    Refit(refit::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Engine(arguments) => engine::run(arguments),
        What::Refit(arguments) => refit::run(arguments),
    }
}
