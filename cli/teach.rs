//! `rollforge teach`: a data set with what a teacher says of each token.

use std::process::ExitCode;

use super::{row_pass::RowPassArguments, trainer};

/// Write what a teacher says of each token of a data set, for rollforge distill (docs/distill.md)
///
/// Rows are what rollforge sft reads. Rows that cannot be used are counted, and the first few named. The output is there whole at
/// the end, or not at all.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) rows: RowPassArguments,
    /// Its most probable tokens that are kept of each
    #[arg(long, value_name = "K", default_value_t = 100)]
    pub(super) top_k: usize,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    trainer::teach(arguments)
}
