//! `rollforge teach`: a data set with what a teacher says of each token.

use std::{path::PathBuf, process::ExitCode};

use super::{serve_rm::Format, trainer};
use crate::trainer::config::Device;

/// Write what a teacher says of each token of a data set, for rollforge distill (docs/distill.md)
///
/// Rows are what rollforge sft reads. Rows that cannot be used are counted, and the first few named. The output is there whole at
/// the end, or not at all.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// JSON Lines or Parquet
    #[arg(value_name = "IN")]
    pub(super) input: PathBuf,
    /// JSON Lines
    #[arg(value_name = "OUT")]
    pub(super) output: PathBuf,
    /// The teacher's directory, or that of a run: then its latest checkpoint
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
    /// Its most probable tokens that are kept of each
    #[arg(long, value_name = "K", default_value_t = 100)]
    pub(super) top_k: usize,
    /// The longest sequence; default what the model's context holds
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    pub(super) max_tokens: usize,
    /// Cut longer ones, instead of leaving them out
    #[arg(long)]
    pub(super) truncate: bool,
    /// Do not end completions with the EOS token
    #[arg(long)]
    pub(super) no_eos: bool,
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
    trainer::teach(arguments)
}
