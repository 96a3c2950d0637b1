//! `rollforge engine`: TensorRT-LLM engines.

mod build;
mod inspect;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

/// Build, look at and verify TensorRT-LLM engines
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Build(build::Arguments),
    Inspect(inspect::Arguments),
    Verify(verify::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        Action::Build(arguments) => build::run(arguments),
        Action::Inspect(arguments) => inspect::run(arguments),
        Action::Verify(arguments) => verify::run(arguments),
    }
}
