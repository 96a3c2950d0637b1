//! The trainer's answers.

use crate::{
    cli::engine::EngineArguments,
    engine::EngineDtype,
    model::Model,
    rollout::Dtype,
    trainer::{
        batch::PackedBatch,
        config::Device,
        learner::LogprobOptions,
        torch::{self, ModelOptions, libtorch},
    },
};

/// Returns the log-probability of each token but the first, for each text.
pub(in crate::cli) fn logprobs(
    model: &Model,
    arguments: &EngineArguments,
    texts: &[Vec<u32>],
) -> anyhow::Result<Vec<Vec<f32>>> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    libtorch::set_threads(if arguments.threads == 0 { cores() } else { arguments.threads })?;
    let compute = match arguments.dtype() {
        EngineDtype::Bf16 => Dtype::Bf16,
        _ => Dtype::F32,
    };
    let options = ModelOptions {
        device: Device::Cpu,
        compute,
        activation_checkpointing: false,
        frozen: true,
    };
    let weights = model.checkpoint.weights(Dtype::F32)?;
    let policy = torch::Model::load(model.spec(), &weights, &options)?;
    let score = |ids: &Vec<u32>| {
        let mut batch = PackedBatch::default();
        batch.push(ids, &vec![true; ids.len()]);
        Ok(policy.logprobs(&batch, &LogprobOptions::default())?.logprobs)
    };
    texts.iter().map(score).collect()
}
