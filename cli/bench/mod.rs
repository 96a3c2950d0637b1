//! `rollforge bench`: measurements on this machine.

mod arguments;
mod engine;
mod output;
pub(super) mod ppo;
mod queue;
mod refit;
mod table;
pub(super) mod train;

use std::process::ExitCode;

use clap::Subcommand;

use super::trainer;

/// Measure how fast pieces of a run are on this machine, against what it can do at most
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Engine(engine::Arguments),
    Train(train::Arguments),
    Refit(refit::Arguments),
    Queue(queue::Arguments),
    Ppo(ppo::Arguments),
    Table(table::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Engine(arguments) => engine::run(arguments),
        What::Train(arguments) => trainer::bench_train(arguments),
        What::Refit(arguments) => refit::run(arguments),
        What::Queue(arguments) => queue::run(arguments),
        What::Ppo(arguments) => trainer::bench_ppo(arguments),
        What::Table(arguments) => table::run(arguments),
    }
}
