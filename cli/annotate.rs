//! `rollforge annotate`: a data set with what an attribute model thinks of its completions.

use std::{path::PathBuf, process::ExitCode};

use super::{serve_rm::Format, trainer};
use crate::trainer::config::Device;

/// Rate the completions of a data set with an attribute model: a column for each attribute (docs/steerlm.md)
///
/// Rows are prompt and completion, messages, or text, as `rollforge regression` reads them. Rows that cannot be used are
/// counted, and the first few named. The output is there whole at the end, or not at all.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// JSON Lines or Parquet
    #[arg(value_name = "IN")]
    pub(super) input: PathBuf,
    /// JSON Lines
    #[arg(value_name = "OUT")]
    pub(super) output: PathBuf,
    /// The attribute model's directory, or that of a run: then its latest checkpoint
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
    /// Ratings are multiples of this; 0 leaves them as the model gives them
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub(super) step: f64,
    /// The lowest rating and the highest
    #[arg(long, value_name = "LOW..HIGH", default_value = "0..4", value_parser = range, allow_hyphen_values = true)]
    pub(super) range: (f64, f64),
    /// The longest sequence; default what the model's context holds
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    pub(super) max_tokens: usize,
    /// Cut longer ones, instead of leaving them out
    #[arg(long)]
    pub(super) truncate: bool,
    /// Do not end completions with the EOS token, where data.append_eos was false when the model was trained
    #[arg(long)]
    pub(super) no_eos: bool,
    /// Replace ratings that rows have already
    #[arg(long)]
    pub(super) rerate: bool,
    /// Replace OUT if it is there
    #[arg(long)]
    pub(super) force: bool,
    /// Tokens of one forward pass
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub(super) micro_batch_tokens: usize,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value_t = Device::Cpu)]
    pub(super) device: Device,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = Format::F32)]
    pub(super) dtype: Format,
    /// Number of threads; 0 takes every core
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// Show no progress
    #[arg(long, short)]
    pub(super) quiet: bool,
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
