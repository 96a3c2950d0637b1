//! A model's way through the rows of a file, into another file.

use std::path::PathBuf;

use super::models;
use crate::{
    config::ComputeDtype,
    data::{DataConfig, OverLong},
    trainer::{config::Device, torch::ModelOptions},
};

/// Which model goes through which rows, and how: what `annotate` and `teach` have in common.
#[derive(Clone, Debug)]
pub struct RowPass {
    /// The model's directory, or that of a run: then its latest checkpoint.
    pub model: PathBuf,
    /// JSON Lines or Parquet.
    pub input: PathBuf,
    /// JSON Lines.
    pub output: PathBuf,
    /// Replace the output if it is there.
    pub replace: bool,
    /// Longest sequence in tokens; never more than the model's context holds.
    pub max_tokens: usize,
    /// Cut longer ones, instead of leaving them out.
    pub truncate: bool,
    /// End each completion that no chat template ends with the EOS token, as `data.append_eos` does in training.
    pub append_eos: bool,
    /// Tokens of one forward pass.
    pub micro_batch_tokens: usize,
    /// Where it computes.
    pub device: Device,
    /// The number format to compute in.
    pub dtype: ComputeDtype,
    /// Number of threads; 0 takes every core.
    pub threads: usize,
}

impl RowPass {
    /// Returns how the rows are read, given what the model's context holds (tokens).
    pub(super) fn data(&self, context: usize) -> DataConfig {
        DataConfig {
            max_tokens: self.max_tokens.min(context),
            over_long: if self.truncate { OverLong::Truncate } else { OverLong::Drop },
            append_eos: self.append_eos,
            ..DataConfig::new(vec![self.input.clone()])
        }
    }

    /// Returns how the model is held: it learns nothing.
    pub(super) fn frozen(&self) -> ModelOptions {
        ModelOptions { frozen: true, ..models::options(self.device, self.dtype, false) }
    }
}
