//! `rollforge data convert`: a data set as the JSON Lines that the loaders read.

use std::{path::PathBuf, process::ExitCode};

use super::ReadingArguments;
use crate::{
    cli::output::{note, print},
    data::{Form, convert},
};

/// Write a data set as the JSON Lines that sft, rm, dpo, kto and ppo read
///
/// Rows that cannot be used are counted, and the first few named. The output is there whole at the end, or not at all.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// JSON Lines or Parquet
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// JSON Lines
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// What the rows are to be: sft, prompts (for ppo), preference (for rm and dpo), unpaired (for kto), ratings
    /// (for regression), steerlm (for sft: prompts that name the attributes of the answer)
    #[arg(long, value_name = "FORM")]
    to: Form,
    #[command(flatten)]
    reading: ReadingArguments,
    /// Replace OUT if it is there
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { input, output, to, reading, force } = arguments;
    let converted = convert(input, output, (*to, &reading.reading()), *force)?;
    if converted.report.used < converted.report.rows {
        note(&converted.report);
    }
    print(format_args!(
        "{}: {} rows of {} ({}) as {} ({to})",
        output.display(),
        converted.report.used,
        converted.report.rows,
        converted.schema,
        converted.written,
    ))?;
    Ok(ExitCode::SUCCESS)
}
