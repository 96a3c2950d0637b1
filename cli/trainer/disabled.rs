//! The trainer's answers in a build without libtorch.

use crate::{cli::engine::EngineArguments, model::Model};

/// Says what is missing.
pub(in crate::cli) fn logprobs(
    _model: &Model,
    _arguments: &EngineArguments,
    _texts: &[Vec<u32>],
) -> anyhow::Result<Vec<Vec<f32>>> {
    anyhow::bail!("--by trainer needs a build with the feature `libtorch`")
}
