//! Model directories into trained models, and back.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, ensure};

use super::model_directory;
use crate::{
    config::ComputeDtype,
    ffi::memory::Memory,
    model::{Companions, Head, Model, ModelSpec, WriteOptions, with_score_head, write_model_with},
    rollout::{Dtype, WeightTensor, WeightVersion, Weights},
    trainer::{
        config::{Device, OptimizerConfig},
        torch::{self, LearningModel, ModelOptions, libtorch},
    },
};

/// Where a reward model's directory says what brings its scores to mean 0 and variance 1.
pub(super) const STANDARDIZATION: &str = "reward_standardization.json";

/// Opens a model directory, or that of a run's latest checkpoint.
///
/// # Errors
/// One line that names the file and what is wrong with it.
pub(super) fn open(path: &Path) -> Result<Model> {
    Ok(Model::open(&model_directory(path))?)
}

/// Lets libtorch use so many threads; 0 stands for every core.
///
/// # Errors
/// When libtorch cannot use as many.
pub(super) fn use_threads(threads: usize) -> Result<()> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    Ok(libtorch::set_threads(if threads == 0 { cores() } else { threads })?)
}

/// Returns how a model that learns is held and computed.
pub(super) fn options(
    device: Device,
    dtype: ComputeDtype,
    activation_checkpointing: bool,
) -> ModelOptions {
    ModelOptions { device, compute: dtype.into(), activation_checkpointing, ..Default::default() }
}

/// The head that a model is wanted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Logits.
    LanguageModel,
    /// A score; a language model gets a new head, drawn by this seed.
    Score(u64),
    /// A score; a language model gets a head of zeros, so that a critic starts by expecting nothing.
    ZeroScore,
}

/// Loads an opened model.
///
/// # Errors
/// When its weights cannot be used, or a score model is asked for tokens.
pub(super) fn load(opened: &Model, wanted: Wanted, options: &ModelOptions) -> Result<torch::Model> {
    let weights = opened.checkpoint.weights(Dtype::F32)?;
    let spec = opened.spec();
    let (spec, weights) = match wanted {
        Wanted::LanguageModel => {
            ensure!(
                spec.head == Head::LanguageModel,
                "{}: must be a language model, this one has a score head",
                opened.checkpoint.dir().display()
            );
            (spec.clone(), weights)
        }
        Wanted::Score(seed) => with_score_head(spec, &weights, seed)?,
        Wanted::ZeroScore => {
            let (scored, weights) = with_score_head(spec, &weights, 0)?;
            let weights =
                if spec.head == Head::Score { weights } else { with_zero_head(&scored, &weights) };
            (scored, weights)
        }
    };
    Ok(torch::Model::load(&spec, &weights, options)?)
}

fn with_zero_head(spec: &ModelSpec, weights: &Weights) -> Weights {
    let zeros = Memory::from_vec(vec![0.0f32; spec.hidden_size], weights.lease());
    let head = WeightTensor { dtype: Dtype::F32, shape: vec![1, spec.hidden_size], memory: zeros };
    let mut tensors: BTreeMap<_, _> =
        weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    tensors.insert("score.weight".into(), head);
    Weights::new(weights.version(), weights.lease().clone(), tensors)
}

/// Loads an opened model, with an optimizer of its own.
///
/// # Errors
/// As [`load`].
pub(super) fn learner(
    opened: &Model,
    wanted: Wanted,
    options: &ModelOptions,
    optimizer: &OptimizerConfig,
) -> Result<LearningModel> {
    Ok(LearningModel::new(load(opened, wanted, options)?, optimizer)?)
}

/// Checks that a model can read the policy's rollouts: it means the same by a token id, and its context holds `longest`
/// tokens.
///
/// # Errors
/// Names both directories when their tokenizers differ, and the reader's when its context is too short.
pub(super) fn check_reader(policy: &Model, reader: &Model, longest: usize) -> Result<()> {
    let same = match (&policy.tokenizer, &reader.tokenizer) {
        (Some(a), Some(b)) => a.to_json()? == b.to_json()?,
        _ => policy.spec().vocab_size == reader.spec().vocab_size,
    };
    ensure!(
        same,
        "{} and {} must have the same tokenizer, theirs differ",
        policy.checkpoint.dir().display(),
        reader.checkpoint.dir().display()
    );
    let context = reader.spec().max_positions;
    ensure!(
        longest <= context,
        "{}: its context must hold the longest rollout of {longest} tokens, got {context}",
        reader.checkpoint.dir().display()
    );
    Ok(())
}

/// Writes a trained model as a directory that transformers loads, in the number format and with the tokenizer it came
/// with. `files` are further ones, by name.
///
/// # Errors
/// When it cannot be written; then nothing is left behind.
pub(super) fn save(
    dir: &Path,
    model: &torch::Model,
    from: &Model,
    files: &[(&str, String)],
) -> Result<()> {
    let mut companions = Companions::of(from.checkpoint.dir())?;
    for (name, text) in files {
        companions.files.insert((*name).to_owned(), text.clone().into_bytes());
    }
    let weights = model.weights(WeightVersion::default(), from.spec().dtype)?;
    let options = WriteOptions { replace: true, ..WriteOptions::default() };
    Ok(write_model_with(dir, model.spec(), &weights, &companions, &options)?)
}
