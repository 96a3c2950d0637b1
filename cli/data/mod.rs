//! `rollforge data`: data sets looked at, and brought into the shape that the loaders read.

mod check;
mod convert;

use std::process::ExitCode;

use clap::Subcommand;

use crate::data::{Reading, Schema};

/// Look at data sets, and convert those of NeMo-Aligner, TRL and verl
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Check(check::Arguments),
    Convert(convert::Arguments),
}

/// How rows are read.
#[derive(Debug, clap::Args)]
struct ReadingArguments {
    /// The schema of the rows, where it is not to be guessed: text, messages, prompt-completion, prompts, preference,
    /// unpaired, ratings, nemo-chat, nemo-prompt-completion, nemo-dpo, nemo-kto, nemo-comparisons, nemo-regression, verl
    #[arg(long, value_name = "SCHEMA")]
    from: Option<Schema>,
    /// A column that goes by another name than the schema's: prompt=question; may be given several times
    #[arg(long = "column", value_name = "OURS=THEIRS", value_parser = renaming)]
    columns: Vec<(String, String)>,
    /// The columns with ratings, where they are not called like the usual attributes (helpfulness, correctness, ...)
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    attributes: Vec<String>,
}

impl ReadingArguments {
    fn reading(&self) -> Reading {
        Reading {
            schema: self.from,
            columns: self.columns.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        Action::Check(arguments) => check::run(arguments),
        Action::Convert(arguments) => convert::run(arguments),
    }
}

fn renaming(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((ours, theirs)) if !ours.is_empty() && !theirs.is_empty() => {
            Ok((ours.into(), theirs.into()))
        }
        _ => Err("must be two names of columns, such as prompt=question".into()),
    }
}
