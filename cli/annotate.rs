//! `rollforge annotate`: a data set with what an attribute model thinks of its completions.

use std::process::ExitCode;

use super::{row_pass::RowPassArguments, trainer};

/// Rate the completions of a data set with an attribute model: a column for each attribute (docs/steerlm.md)
///
/// Rows are prompt and completion, messages, or text, as `rollforge regression` reads them. Rows that cannot be used are
/// counted, and the first few named. The output is there whole at the end, or not at all.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) rows: RowPassArguments,
    /// Ratings are multiples of this; 0 leaves them as the model gives them
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub(super) step: f64,
    /// The lowest rating and the highest
    #[arg(long, value_name = "LOW..HIGH", default_value = "0..4", value_parser = range, allow_hyphen_values = true)]
    pub(super) range: (f64, f64),
    /// Replace ratings that rows have already
    #[arg(long)]
    pub(super) rerate: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    trainer::annotate(arguments)
}

fn range(text: &str) -> Result<(f64, f64), String> {
    let ends = text.split_once("..").map(|(low, high)| (low.parse(), high.parse()));
    match ends {
        Some((Ok(low), Ok(high))) if low <= high => Ok((low, high)),
        _ => Err("must be two numbers, the lower one first, such as 0..4".into()),
    }
}
