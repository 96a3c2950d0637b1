//! How fast the trainer learns: forward, backward and AdamW.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Report, Row, Subject, Turns, Unit,
    peer::Arguments,
    report::Agreement,
    subject::prompt,
    turns::{at_least, repeated},
};
use crate::{
    engine::EngineModel,
    model::read_tensors,
    rollout::{Dtype, Weights},
    run::models,
    trainer::{
        batch::PackedBatch,
        config::OptimizerConfig,
        torch::{AdamW, LogprobOptions, Model, ModelOptions, TokenGradient, TokenLogprobs},
    },
};

/// How far a tensor of the gradient may be from a peer's, as a share of that one's length: both are f32, summed in
/// different orders.
const TOLERANCE: f64 = 1e-3;
/// Learning rate of the steps: they are to take time, not to lead anywhere.
const LEARNING_RATE: f64 = 1e-5;

/// How long to wait for somebody who writes to a gradient: nobody does.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is measured.
#[derive(Clone, Debug)]
pub struct TrainBench {
    /// The model.
    pub model: Subject,
    /// The number format to compute with; weights and optimizer state are f32 in either.
    pub dtype: Dtype,
    /// Sequences of a step.
    pub rows: usize,
    /// Tokens of each.
    pub length: usize,
    /// Threads. 0 takes every core.
    pub threads: usize,
    /// How often, and with whom.
    pub turns: Turns,
}

/// Measures; `progress` hears what comes next.
///
/// # Errors
/// One line: what is missing, or cannot be used.
pub fn train(options: &TrainBench, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let TrainBench { dtype, rows, length, .. } = *options;
    options.turns.check()?;
    at_least("--rows", 1, [rows])?;
    at_least("--length", 2, [length])?;
    let disk = options.turns.on_disk(&options.model, dtype)?;
    let model = match &disk {
        Some(disk) => disk.open(Dtype::F32)?,
        None => options.model.open(Dtype::F32)?,
    };
    ensure!(
        length <= model.spec.max_positions,
        "--length must be at most {}, the model's positions, got {length}",
        model.spec.max_positions
    );
    let mut report = Report::begin("train", options.threads, progress)?;
    models::use_threads(report.limits.threads)?;
    report.set("model", options.model.name());
    report.set("parameters", model.spec.parameters());
    report.set("dtype", dtype.to_string());
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let gradients = scratch.path().join("gradients.safetensors");
    let arguments = disk.as_ref().map_or_else(Arguments::none, |disk| {
        Arguments::new(disk.path())
            .with("--dtype", dtype)
            .with("--rows", rows)
            .with("--length", length)
            .with("--threads", report.limits.threads)
            .with("--repeats", options.turns.repeats)
            .with("--gradients", gradients.display())
    });
    let least =
        report.limits.training_seconds(&model.spec, dtype, rows * length, rows * (length - 1));
    let limit = (rows * length) as f64 / least;
    let batch = batch(&model, rows, length);
    options.turns.take(&mut report, &arguments, progress, |progress| {
        progress(&format!("training, {rows} x {length} tokens"));
        let seconds = steps(&model, dtype, &batch, options.turns.repeats)?;
        let rates = seconds.iter().map(|seconds| (rows * length) as f64 / seconds).collect();
        let stem = format!("train_{rows}x{length}");
        Ok(vec![Row::new(&stem, Unit::TokensPerSecond, rates, Some(limit))?])
    })?;
    if let Some(peer) = report.peers.iter_mut().find(|_| gradients.is_file()) {
        peer.agreement = Some(agreement(&model, &batch, &gradients)?);
    }
    Ok(report)
}

fn batch(model: &EngineModel, rows: usize, length: usize) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for row in 0..rows {
        batch.push(&prompt(row, length, model.spec.vocab_size), &vec![true; length]);
    }
    batch
}

/// Returns the seconds of each step.
fn steps(
    model: &EngineModel,
    dtype: Dtype,
    batch: &PackedBatch,
    repeats: usize,
) -> Result<Vec<f64>> {
    let options = ModelOptions { compute: dtype, ..ModelOptions::default() };
    let mut model = Model::load(&model.spec, &model.weights, &options)?;
    let mut optimizer = AdamW::new(&model, &OptimizerConfig::default())?;
    repeated(repeats, || {
        let start = Instant::now();
        learn(&mut model, batch)?;
        optimizer.step(&mut model, LEARNING_RATE)?;
        Ok(start.elapsed().as_secs_f64())
    })
}

/// Adds the gradient of the mean cross entropy of all tokens but each sequence's first.
fn learn(model: &mut Model, batch: &PackedBatch) -> Result<()> {
    let mean = |outputs: &TokenLogprobs| {
        let count = outputs.logprobs.len();
        TokenGradient { logprobs: vec![-1.0 / count as f32; count], ..TokenGradient::default() }
    };
    Ok(model.train_logprobs(batch, &LogprobOptions::default(), mean)?)
}

/// Compares our gradient with a peer's, both in f32.
fn agreement(model: &EngineModel, batch: &PackedBatch, theirs: &Path) -> Result<Agreement> {
    let mut model = Model::load(&model.spec, &model.weights, &ModelOptions::default())?;
    learn(&mut model, batch)?;
    let (ours, theirs) = (model.gradient()?, read_tensors(theirs)?);
    let (distance, farthest) = distance(&ours, &theirs)?;
    let tensors = ours.iter().count();
    let found = format!(
        "the gradients of {tensors} tensors differ by at most {distance:.1e} of their length, in \
         {farthest}; tolerance {TOLERANCE:.0e}"
    );
    Ok(Agreement { agrees: distance <= TOLERANCE, found })
}

/// Returns the largest relative distance of two tensors of the same name, and that name.
fn distance(ours: &Weights, theirs: &Weights) -> Result<(f64, String)> {
    let reading = |weights: &Weights| {
        weights.lease().read(PATIENCE).context("the gradient is being written to")
    };
    let (our_reading, their_reading) = (reading(ours)?, reading(theirs)?);
    let mut farthest = (0.0, "none".to_owned());
    for (name, tensor) in ours.iter() {
        let other =
            theirs.get(name).with_context(|| format!("the peer has no gradient of {name}"))?;
        let (a, b) = (tensor.f32(&our_reading), other.f32(&their_reading));
        ensure!(a.len() == b.len(), "the peer's gradient of {name} has another size");
        let square = |x: f64| x * x;
        let apart: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
        let length: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
        let distance = (apart / length.max(f64::MIN_POSITIVE)).sqrt();
        if distance > farthest.0 {
            farthest = (distance, name.to_owned());
        }
    }
    Ok(farthest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        ffi::memory::{Lease, Memory},
        rollout::{WeightTensor, WeightVersion},
    };

    fn weights(tensors: &[(&str, &[f32])]) -> Weights {
        let lease = Lease::default();
        let tensor = |values: &[f32]| WeightTensor {
            dtype: Dtype::F32,
            shape: vec![values.len()],
            memory: Memory::from_vec(values.to_vec(), &lease),
        };
        let tensors: BTreeMap<_, _> =
            tensors.iter().map(|(name, values)| ((*name).to_owned(), tensor(values))).collect();
        Weights::new(WeightVersion::default(), lease.clone(), tensors)
    }

    #[test]
    fn the_distance_is_that_of_the_worst_tensor() {
        let ours = weights(&[("a", &[3.0, 4.0]), ("b", &[1.0])]);
        let theirs = weights(&[("a", &[3.0, 4.5]), ("b", &[1.0]), ("c", &[9.0])]);
        let (distance, name) = distance(&ours, &theirs).unwrap();
        assert_eq!(name, "a");
        assert!((distance - 0.5 / f64::hypot(3.0, 4.5)).abs() < 1e-6, "{distance}");
        let error = super::distance(&theirs, &ours).unwrap_err().to_string();
        assert_eq!(error, "the peer has no gradient of c");
    }
}
