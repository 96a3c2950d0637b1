use super::super::{
    Entropy, LogprobOptions, Model, ModelOptions, TokenGradient, TokenLogprobs, testing,
};
use crate::{
    model::{Head, ModelSpec},
    rollout::{Dtype, Weights},
    trainer::batch::PackedBatch,
};

const TRAIN: LogprobOptions =
    LogprobOptions { temperature: 0.8, entropy: Entropy::Train, top: false };

/// Some loss of log-probs and entropies, uneven over tokens, and its gradient.
fn token_loss(outputs: &TokenLogprobs) -> (f64, TokenGradient) {
    let weight = |i: usize| 0.1 + 0.05 * (i % 7) as f32;
    let logprobs: Vec<f32> = (0..outputs.logprobs.len()).map(weight).collect();
    let entropy: Vec<f32> = (0..outputs.entropy.len()).map(|i| -0.3 * weight(i + 3)).collect();
    let sum = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let candidates: Vec<f32> = (0..outputs.candidates.len()).map(|i| weight(i + 5)).collect();
    let loss = sum(&logprobs, &outputs.logprobs)
        + sum(&entropy, &outputs.entropy)
        + sum(&candidates, &outputs.candidates);
    (loss, TokenGradient { logprobs, entropy, candidates })
}

fn batch(spec: &ModelSpec) -> PackedBatch {
    testing::with_candidates(testing::batch(spec), spec)
}

fn train(model: &mut Model, batch: &PackedBatch) {
    match model.spec().head {
        Head::LanguageModel => {
            model.train_logprobs(batch, &TRAIN, |outputs| token_loss(outputs).1).unwrap()
        }
        Head::Score => model.train_values(batch, |values| values.to_vec()).unwrap(),
    }
}

fn loss(model: &Model, batch: &PackedBatch) -> f64 {
    match model.spec().head {
        Head::LanguageModel => token_loss(&model.logprobs(batch, &TRAIN).unwrap()).0,
        Head::Score => {
            model.values(batch).unwrap().iter().map(|value| 0.5 * f64::from(value * value)).sum()
        }
    }
}

fn gradient(spec: &ModelSpec, options: ModelOptions, batches: &[PackedBatch]) -> Weights {
    let mut model = testing::model(spec, options);
    batches.iter().for_each(|batch| train(&mut model, batch));
    model.gradient().unwrap()
}

/// The distance of two gradients, relative to the second's norm, at the parameter where it is largest.
fn distance(a: &Weights, b: &Weights) -> f64 {
    let (a, b) = (testing::values(a), testing::values(b));
    let relative = |name: &String| {
        let norm =
            |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let difference = norm(&mut a[name].iter().zip(&b[name]).map(|(a, b)| a - b));
        difference / norm(&mut b[name].iter().copied()).max(1e-12)
    };
    b.keys().map(relative).fold(0.0, f64::max)
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    for spec in testing::specs() {
        let batch = batch(&spec);
        let analytic = testing::values(&gradient(
            &spec,
            ModelOptions::default(),
            std::slice::from_ref(&batch),
        ));
        let at = |name: &str, index: usize, step: f32| {
            let value = testing::values(&testing::weights(&spec, 1))[name][index];
            let weights = testing::weights_with(&spec, name, index, value + step);
            loss(&Model::load(&spec, &weights, &ModelOptions::default()).unwrap(), &batch)
        };
        for (name, gradient) in &analytic {
            // The element with the steepest slope stands out best from f32's rounding.
            let steepest = |a: &usize, b: &usize| gradient[*a].abs().total_cmp(&gradient[*b].abs());
            let index = (0..gradient.len()).max_by(steepest).unwrap();
            let step = 4e-3;
            let slope = (at(name, index, step) - at(name, index, -step)) / (2.0 * f64::from(step));
            let error = (slope - f64::from(gradient[index])).abs();
            assert!(
                error < 2e-2 * slope.abs() + 1e-3,
                "{name}[{index}]: {slope} and {}",
                gradient[index]
            );
        }
    }
}

#[test]
fn checkpointing_changes_no_gradient() {
    for compute in [Dtype::F32, Dtype::Bf16] {
        for spec in testing::specs() {
            let batch = [batch(&spec)];
            let plain = ModelOptions { compute, ..ModelOptions::default() };
            let checkpointed = ModelOptions { activation_checkpointing: true, ..plain };
            let (a, b) = (gradient(&spec, checkpointed, &batch), gradient(&spec, plain, &batch));
            assert!(distance(&a, &b) < 1e-6, "{}", distance(&a, &b));
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    for spec in testing::specs().into_iter().filter(|spec| spec.head == Head::Score) {
        let (one, other) =
            (testing::batch(&spec), PackedBatch::pack([(&[4, 5, 6][..], &[true; 3][..])]));
        let mut both = one.clone();
        both.push(&[4, 5, 6], &[true; 3]);
        let options = ModelOptions::default();
        let distance =
            distance(&gradient(&spec, options, &[one, other]), &gradient(&spec, options, &[both]));
        assert!(distance < 1e-5, "{distance}");
    }
}

#[test]
fn bf16_gradients_agree_to_bf16_precision() {
    for spec in testing::specs() {
        let batch = [testing::batch(&spec)];
        let rough = ModelOptions { compute: Dtype::Bf16, ..ModelOptions::default() };
        let distance = distance(
            &gradient(&spec, rough, &batch),
            &gradient(&spec, ModelOptions::default(), &batch),
        );
        assert!(distance > 0.0 && distance < 0.1, "{distance}");
    }
}

#[test]
fn training_sees_the_very_numbers_that_scoring_gives() {
    let measure = LogprobOptions { entropy: Entropy::Measure, ..TRAIN };
    for compute in [Dtype::F32, Dtype::Bf16] {
        for activation_checkpointing in [false, true] {
            let spec = testing::spec();
            let options =
                ModelOptions { compute, activation_checkpointing, ..ModelOptions::default() };
            let (mut model, batch) = (testing::model(&spec, options), batch(&spec));
            let scored = model.logprobs(&batch, &measure).unwrap();
            let mut seen = TokenLogprobs::default();
            let loss = |outputs: &TokenLogprobs| {
                seen = outputs.clone();
                token_loss(outputs).1
            };
            model.train_logprobs(&batch, &TRAIN, loss).unwrap();
            assert_eq!(seen, scored, "a ratio of exactly one depends on it");
        }
    }
}

#[test]
fn a_pair_loss_reaches_every_parameter() {
    let spec = testing::spec().with_head(Head::Score);
    let (mut model, batch) = (testing::model(&spec, ModelOptions::default()), batch(&spec));
    let scores = model.scores(&batch).unwrap();
    let mut seen = Vec::new();
    let loss = |scores: &[f32]| {
        seen = scores.to_vec();
        vec![1.0, -1.0, 0.5]
    };
    model.train_scores(&batch, loss).unwrap();
    assert_eq!(seen, scores);
    for (name, gradient) in testing::values(&model.gradient().unwrap()) {
        assert!(gradient.iter().any(|&slope| slope != 0.0), "{name}");
    }
}

#[test]
fn a_gradient_of_another_length_is_refused() {
    let spec = testing::spec();
    let (mut model, batch) = (testing::model(&spec, ModelOptions::default()), batch(&spec));
    let error = model.train_logprobs(&batch, &TRAIN, |_| TokenGradient::default()).unwrap_err();
    let selected = batch.selected.len();
    assert_eq!(
        error.to_string(),
        format!("gradient must be one number for each of {selected} outputs, got 0")
    );
    let (rows, all) = (batch.selected.len(), batch.candidates.len());
    let odd = |_: &TokenLogprobs| TokenGradient {
        logprobs: vec![0.0; rows],
        candidates: vec![0.0; rows],
        ..TokenGradient::default()
    };
    let error = model.train_logprobs(&batch, &TRAIN, odd).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("gradient must be one number for each of {all} outputs, got {rows}")
    );
}

#[test]
fn a_frozen_model_is_not_trained() {
    let spec = testing::spec();
    let options = ModelOptions { frozen: true, ..ModelOptions::default() };
    let (mut model, batch) = (testing::model(&spec, options), batch(&spec));
    let error = model.train_logprobs(&batch, &TRAIN, |outputs| token_loss(outputs).1).unwrap_err();
    assert_eq!(error.to_string(), "model must be loaded for training, got a frozen one");
}

#[test]
fn logits_in_chunks_give_the_same_gradient() {
    let spec = testing::spec();
    let batch = batch(&spec);
    let (mut whole, mut chunked) = (
        testing::model(&spec, ModelOptions::default()),
        testing::model(&spec, ModelOptions::default()),
    );
    chunked.head.max_logits = 3 * spec.vocab_size; // does not divide the number of rows
    assert!(
        chunked.head.chunks(batch.selected.len()).len() > 1
            && !batch.selected.len().is_multiple_of(3)
    );
    assert!((loss(&whole, &batch) - loss(&chunked, &batch)).abs() < 1e-6);
    train(&mut whole, &batch);
    train(&mut chunked, &batch);
    let distance = distance(&chunked.gradient().unwrap(), &whole.gradient().unwrap());
    assert!(distance < 1e-5, "{distance}");
}
