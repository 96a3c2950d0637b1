//! Model directories into trained models, and back.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};

use super::model_directory;
use crate::{
    config::{ComputeDtype, EmaConfig, LoraConfig, ModelConfig},
    ffi::memory::Memory,
    model::{
        Adapter, Companions, Head, Lora, Model, ModelSpec, WriteOptions, read_adapter,
        with_score_head, write_adapter, write_model_with,
    },
    rollout::{Dtype, WeightTensor, WeightVersion, Weights},
    trainer::{
        config::{Device, OptimizerConfig},
        torch::{self, LearningModel, Learns, ModelOptions, libtorch},
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

/// Returns how a model is held and computed.
pub(super) fn options(
    device: Device,
    dtype: ComputeDtype,
    activation_checkpointing: bool,
) -> ModelOptions {
    ModelOptions { device, compute: dtype.into(), activation_checkpointing, ..Default::default() }
}

/// How models are loaded that learn.
pub(super) struct Learning<'a> {
    pub(super) model: ModelConfig,
    pub(super) device: Device,
    /// Draws new adapters.
    pub(super) seed: u64,
    pub(super) optimizer: &'a OptimizerConfig,
    pub(super) lora: &'a LoraConfig,
    pub(super) ema: EmaConfig,
}

impl Learning<'_> {
    /// Returns how a model that learns is held and computed.
    pub(super) fn options(&self) -> ModelOptions {
        options(self.device, self.model.dtype, self.model.activation_checkpointing)
    }

    /// Loads an opened model, with an optimizer of its own, and what else the configuration wants beside it.
    ///
    /// # Errors
    /// As [`load`]; when an adapter does not fit the model, or what is to stay as it is is no part of it.
    pub(super) fn learner(&self, opened: &Model, wanted: Wanted<'_>) -> Result<LearningModel> {
        let (spec, weights) = headed(opened, wanted)?;
        let adapter = match &self.lora.adapter {
            Some(path) => {
                let Adapter { lora, tensors } = read_adapter(path, &spec)?;
                Some((lora, tensors))
            }
            None => self.new_adapter(&spec),
        };
        let learns = Learns { adapter, freeze: self.model.freeze() };
        let model = torch::Model::load_with(&spec, &weights, &self.options(), &learns)?;
        Ok(LearningModel::new(model, self.optimizer)?.with_average(self.ema.decay)?)
    }

    /// Loads what learns beside a policy: an adapter of it is new, and all of it learns otherwise. `sum` weighs the labels of
    /// a model that has several.
    ///
    /// # Errors
    /// As [`load`], and when several labels have no weights.
    pub(super) fn critic(
        &self,
        opened: &Model,
        sum: &BTreeMap<String, f64>,
    ) -> Result<LearningModel> {
        let (spec, weights) = headed(opened, Wanted::ZeroScore(sum))?;
        let adapter = match &self.lora.adapter {
            Some(path) => {
                let lora = read_adapter(path, &spec)?.lora;
                let tensors = lora.random(&spec, self.seed);
                Some((lora, tensors))
            }
            None => self.new_adapter(&spec),
        };
        let learns = Learns { adapter, ..Learns::default() };
        let model = torch::Model::load_with(&spec, &weights, &self.options(), &learns)?;
        Ok(LearningModel::new(model, self.optimizer)?)
    }

    fn new_adapter(&self, spec: &ModelSpec) -> Option<(Lora, Weights)> {
        let lora = self.lora.described()?;
        let tensors = lora.random(spec, self.seed);
        Some((lora, tensors))
    }
}

/// The head that a model is wanted with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wanted<'a> {
    /// Logits.
    LanguageModel,
    /// One score; a language model gets a new head, drawn by this seed.
    Score(u64),
    /// One score; a language model gets a head of zeros, so that a critic starts by expecting nothing. Of a model with
    /// several labels it is their weighted sum, where weights are given.
    ZeroScore(&'a BTreeMap<String, f64>),
    /// A score for each of these names; a language model gets a new head, drawn by this seed.
    Attributes(u64, &'a [String]),
    /// Whatever scores it has.
    Scores,
}

/// Loads an opened model.
///
/// # Errors
/// When its weights cannot be used, or a score model is asked for tokens.
pub(super) fn load(
    opened: &Model,
    wanted: Wanted<'_>,
    options: &ModelOptions,
) -> Result<torch::Model> {
    let (spec, weights) = headed(opened, wanted)?;
    Ok(torch::Model::load(&spec, &weights, options)?)
}

/// Returns an opened model's shape and weights with the head that is wanted.
fn headed(opened: &Model, wanted: Wanted<'_>) -> Result<(ModelSpec, Weights)> {
    let weights = opened.checkpoint.weights(Dtype::F32)?;
    let (spec, dir) = (opened.spec(), opened.checkpoint.dir().display());
    let is_scored = spec.head == Head::Score;
    Ok(match wanted {
        Wanted::LanguageModel => {
            ensure!(!is_scored, "{dir}: must be a language model, this one has a score head");
            (spec.clone(), weights)
        }
        Wanted::Score(seed) => {
            one_label(opened)?;
            with_score_head(spec, &weights, &[], seed)?
        }
        Wanted::ZeroScore(sum) if is_scored && !sum.is_empty() => {
            with_weighted_head(spec, &weights, &label_weights(opened, sum)?)?
        }
        Wanted::ZeroScore(_) => {
            one_label(opened)?;
            let (scored, weights) = with_score_head(spec, &weights, &[], 0)?;
            let zeros = || with_head(&weights, vec![0.0; spec.hidden_size]);
            let weights = if is_scored { weights } else { zeros() };
            (scored, weights)
        }
        Wanted::Attributes(seed, names) => {
            let labels = spec.label_names();
            ensure!(
                !is_scored || labels == names,
                "{dir}: its labels must be regression.attributes ({}), got {}",
                names.join(", "),
                labels.join(", ")
            );
            with_score_head(spec, &weights, names, seed)?
        }
        Wanted::Scores => {
            ensure!(is_scored, "{dir}: must have a score head, this is a language model");
            (spec.clone(), weights)
        }
    })
}

/// Checks that a model has no more than one label, where one number is needed.
fn one_label(opened: &Model) -> Result<()> {
    let spec = opened.spec();
    ensure!(
        spec.num_labels() == 1,
        "{}: must have one label, this model has {}: {} (a reward source of kind \"model\" takes weights for them)",
        opened.checkpoint.dir().display(),
        spec.num_labels(),
        spec.labels.join(", ")
    );
    Ok(())
}

/// Returns the weight of each of a model's labels, 0 for those that are not named.
///
/// # Errors
/// When a name is none of the model's; when there are several labels and no name.
pub(super) fn label_weights(opened: &Model, weights: &BTreeMap<String, f64>) -> Result<Vec<f32>> {
    let labels = opened.spec().label_names();
    if weights.is_empty() {
        one_label(opened)?;
        return Ok(vec![1.0]);
    }
    for name in weights.keys() {
        ensure!(
            labels.contains(name),
            "{}: weights must name labels of the model ({}), got {name:?}",
            opened.checkpoint.dir().display(),
            labels.join(", ")
        );
    }
    let weight = |name| weights.get(name).copied().unwrap_or_default() as f32;
    Ok(labels.iter().map(weight).collect())
}

/// Makes one label of several: the sum of a head's rows by their weights gives the sum of their numbers.
fn with_weighted_head(
    spec: &ModelSpec,
    weights: &Weights,
    sum: &[f32],
) -> Result<(ModelSpec, Weights)> {
    let rows = weights.get(Head::SCORE).context("a score head has weights")?;
    // Nobody writes what was just read from a file.
    let reading = weights.lease().read(Duration::from_secs(1));
    let reading = reading.context("the score head is being written")?;
    let rows = rows.f32(&reading);
    let column = |i: usize| {
        let terms = sum.iter().zip(rows.chunks_exact(spec.hidden_size));
        terms.map(|(weight, row)| weight * row[i]).sum()
    };
    let head = (0..spec.hidden_size).map(column).collect();
    Ok((spec.with_labels(&[]), with_head(weights, head)))
}

/// Puts a score head of one label on a transformer.
fn with_head(weights: &Weights, head: Vec<f32>) -> Weights {
    let shape = vec![1, head.len()];
    let memory = Memory::from_vec(head, weights.lease());
    let head = WeightTensor { dtype: Dtype::F32, shape, memory };
    let mut tensors: BTreeMap<_, _> =
        weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    tensors.insert(Head::SCORE.into(), head);
    Weights::new(weights.version(), weights.lease().clone(), tensors)
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

/// What is put behind a model's name for its adapter's folder, and for that of the average of its weights.
const ADAPTER: &str = "adapter";
const AVERAGE: &str = "_ema";

/// Writes trained models, by name, as directories that transformers loads, in the number format and with the tokenizer they
/// came with: an adapter merged, and beside that by itself; the average of weights, where there is one. `files` are further
/// ones of each directory, by name. The adapter of a critic, which is `value`, lies in `value_adapter`.
///
/// # Errors
/// When one cannot be written.
pub(super) fn save(
    dir: &Path,
    learners: &[(&'static str, &LearningModel)],
    from: &Model,
    files: &[(&str, String)],
) -> Result<()> {
    for &(name, learner) in learners {
        let (model, dtype) = (&learner.model, from.spec().dtype);
        let merged = model.weights(WeightVersion::default(), dtype)?;
        write(&dir.join(name), (model.spec(), &merged), from, files)?;
        if let Some((lora, tensors)) = model.lora().zip(model.adapter()?) {
            let folder = if name == "value" { format!("{name}_{ADAPTER}") } else { ADAPTER.into() };
            let of = (lora, model.spec().head);
            write_adapter(&dir.join(folder), of, &tensors, from.checkpoint.dir())?;
        }
        if let Some(average) = learner.averaged_weights(dtype)? {
            write(&dir.join(format!("{name}{AVERAGE}")), (model.spec(), &average), from, files)?;
        }
    }
    Ok(())
}

fn write(
    dir: &Path,
    (spec, weights): (&ModelSpec, &Weights),
    from: &Model,
    files: &[(&str, String)],
) -> Result<()> {
    let mut companions = Companions::of(from.checkpoint.dir())?;
    for (name, text) in files {
        companions.files.insert((*name).to_owned(), text.clone().into_bytes());
    }
    let options = WriteOptions { replace: true, ..WriteOptions::default() };
    Ok(write_model_with(dir, spec, weights, &companions, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Init, NewModelSpec, new_model, random_weights},
        trainer::batch::PackedBatch,
    };

    #[test]
    fn the_weighted_sum_of_a_heads_rows_gives_the_weighted_sum_of_its_labels() {
        let folder = tempfile::tempdir().unwrap();
        let small = NewModelSpec {
            vocab_size: 260,
            hidden_size: 8,
            intermediate_size: 16,
            num_layers: 1,
            num_heads: 2,
            ..NewModelSpec::default()
        };
        let path = folder.path().join("model");
        new_model(&small, std::iter::once("ab".to_owned()), &path).unwrap();
        let spec = open(&path).unwrap().spec().with_labels(&["a", "b", "c"].map(String::from));
        let weights = random_weights(&spec, Init { std: 0.5, seed: 3 });
        let sum = [0.5, 0.0, -2.0];
        let (one, summed) = with_weighted_head(&spec, &weights, &sum).unwrap();
        let batch = PackedBatch::pack([(&[1, 2, 3][..], &[false; 3][..]), (&[7, 7], &[false; 2])]);
        let scores = |spec, weights| {
            let model = torch::Model::load(spec, weights, &ModelOptions::default()).unwrap();
            model.scores(&batch).unwrap()
        };
        let (labels, sums) = (scores(&spec, &weights), scores(&one, &summed));
        assert_eq!((labels.len(), sums.len()), (6, 2));
        for (labels, got) in labels.chunks(3).zip(sums) {
            let wanted: f32 = labels.iter().zip(sum).map(|(label, weight)| label * weight).sum();
            assert!((got - wanted).abs() < 1e-5 && wanted != 0.0, "{got} {wanted}");
        }
    }
}
