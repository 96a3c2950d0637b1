//! The arguments of commands in which a model goes through the rows of a file.

use std::path::PathBuf;

use super::serve_rm::Format;
use crate::trainer::config::Device;

#[derive(Debug, clap::Args)]
pub(super) struct RowPassArguments {
    /// JSON Lines or Parquet
    #[arg(value_name = "IN")]
    pub(super) input: PathBuf,
    /// JSON Lines
    #[arg(value_name = "OUT")]
    pub(super) output: PathBuf,
    /// The model's directory, or that of a run: then its latest checkpoint
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
    /// The longest sequence; default what the model's context holds
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    pub(super) max_tokens: usize,
    /// Cut longer ones, instead of leaving them out
    #[arg(long)]
    pub(super) truncate: bool,
    /// Do not end completions with the EOS token, where data.append_eos was false in training
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
