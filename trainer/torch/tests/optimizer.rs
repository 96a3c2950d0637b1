use std::collections::BTreeMap;

use super::super::{AdamW, LogprobOptions, Model, ModelOptions, TokenGradient, testing};
use crate::{
    model::ModelSpec,
    rollout::{Dtype, WeightVersion},
    trainer::config::OptimizerConfig,
};

/// A gradient that changes from step to step.
fn train(model: &mut Model, spec: &ModelSpec, step: usize) {
    let loss = |outputs: &super::super::TokenLogprobs| {
        let slope = |i: usize| ((i + step) % 5) as f32 - 2.2;
        TokenGradient {
            logprobs: (0..outputs.logprobs.len()).map(slope).collect(),
            ..TokenGradient::default()
        }
    };
    model.train_logprobs(&testing::batch(spec), &LogprobOptions::default(), loss).unwrap();
}

fn weights(model: &Model) -> BTreeMap<String, Vec<f32>> {
    testing::values(&model.weights(WeightVersion(0), Dtype::F32).unwrap())
}

fn options() -> OptimizerConfig {
    OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() }
}

/// One number's AdamW, by the book, in f64.
#[derive(Default)]
struct Scalar {
    m: f64,
    v: f64,
}

impl Scalar {
    fn step(&mut self, w: f64, g: f64, t: i32, (lr, decay): (f64, f64)) -> f64 {
        let ([b1, b2], eps) = (options().betas, options().eps);
        self.m = b1 * self.m + (1.0 - b1) * g;
        self.v = b2 * self.v + (1.0 - b2) * g * g;
        let (m, v) = (self.m / (1.0 - b1.powi(t)), self.v / (1.0 - b2.powi(t)));
        w - lr * decay * w - lr * m / (v.sqrt() + eps)
    }
}

#[test]
fn steps_agree_with_a_scalar_twin() {
    let spec = testing::spec();
    let mut model = testing::model(&spec, ModelOptions::default());
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    let mut twins: BTreeMap<String, Vec<Scalar>> = BTreeMap::new();
    for t in 1..=4 {
        train(&mut model, &spec, t as usize);
        let (before, gradient) = (weights(&model), testing::values(&model.gradient().unwrap()));
        let norm = gradient.values().flatten().map(|&g| f64::from(g * g)).sum::<f64>().sqrt();
        let report = optimizer.step(&mut model, 1e-2).unwrap();
        assert!((report.grad_norm - norm).abs() < 1e-4 * norm && norm > 1.0, "clipping is at work");
        assert_eq!(report.steps, t as u64);
        for (name, after) in weights(&model) {
            let decay = if spec.tensors().iter().any(|x| x.name == name && x.shape.len() == 2) {
                0.1
            } else {
                0.0
            };
            let twins = twins.entry(name.clone()).or_default();
            twins.resize_with(after.len(), Scalar::default);
            for (i, twin) in twins.iter_mut().enumerate() {
                let g = f64::from(gradient[&name][i]) / (norm + 1e-6);
                let expected = twin.step(f64::from(before[&name][i]), g, t, (1e-2, decay));
                let got = f64::from(after[i]);
                assert!(
                    (expected - got).abs() < 2e-6,
                    "{name}[{i}] at step {t}: {expected} and {got}"
                );
            }
        }
    }
}

#[test]
fn rate_zero_changes_no_bit() {
    for compute in [Dtype::F32, Dtype::Bf16] {
        let spec = testing::spec();
        // Negative zero is the number that careless arithmetic changes.
        let start = testing::weights_with(&spec, "lm_head.weight", 3, -0.0);
        let mut model =
            Model::load(&spec, &start, &ModelOptions { compute, ..ModelOptions::default() })
                .unwrap();
        let bits = |model: &Model| -> Vec<u32> {
            weights(model).values().flatten().map(|w| w.to_bits()).collect()
        };
        let before = bits(&model);
        let mut optimizer = AdamW::new(&model, &options()).unwrap();
        for step in 0..3 {
            train(&mut model, &spec, step);
            optimizer.step(&mut model, 0.0).unwrap();
        }
        assert_eq!(bits(&model), before);
    }
}

#[test]
fn the_bf16_copy_follows_the_master() {
    let spec = testing::spec();
    let mut model =
        testing::model(&spec, ModelOptions { compute: Dtype::Bf16, ..ModelOptions::default() });
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    train(&mut model, &spec, 0);
    optimizer.step(&mut model, 1e-2).unwrap();
    let (master, copy) = (weights(&model), model.weights(WeightVersion(1), Dtype::Bf16).unwrap());
    let reading = copy.lease().read(std::time::Duration::from_secs(1)).unwrap();
    for (name, tensor) in copy.iter() {
        let rounded: Vec<half::bf16> =
            master[name].iter().map(|&w| half::bf16::from_f32(w)).collect();
        assert_eq!(tensor.bf16(&reading), rounded, "{name}");
    }
}

#[test]
fn a_restored_state_goes_on_bit_for_bit() {
    let spec = testing::spec();
    let mut model = testing::model(&spec, ModelOptions::default());
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    let advance = |model: &mut Model, optimizer: &mut AdamW, step: usize| {
        train(model, &spec, step);
        optimizer.step(model, 1e-2).unwrap();
    };
    advance(&mut model, &mut optimizer, 0);
    let state = optimizer.state(&model).unwrap();
    let saved = model.weights(WeightVersion(1), Dtype::F32).unwrap();
    let mut copy = Model::load(&spec, &saved, &ModelOptions::default()).unwrap();
    let mut resumed = AdamW::new(&copy, &options()).unwrap();
    resumed.restore(&copy, &state).unwrap();
    advance(&mut model, &mut optimizer, 1);
    advance(&mut copy, &mut resumed, 1);
    assert_eq!(weights(&copy), weights(&model));
}

#[test]
fn an_infinite_gradient_is_refused_by_name_and_changes_nothing() {
    let spec = testing::spec();
    let mut model = testing::model(&spec, ModelOptions::default());
    let mut optimizer = AdamW::new(&model, &options()).unwrap();
    let before = weights(&model);
    let loss = |outputs: &super::super::TokenLogprobs| TokenGradient {
        logprobs: vec![f32::INFINITY; outputs.logprobs.len()],
        ..TokenGradient::default()
    };
    model.train_logprobs(&testing::batch(&spec), &LogprobOptions::default(), loss).unwrap();
    let error = optimizer.step(&mut model, 1e-2).unwrap_err().to_string();
    assert!(
        error.starts_with("gradient of ") && error.contains(" must be finite, got "),
        "{error}"
    );
    assert_eq!(weights(&model), before);
    model.clear_gradient().unwrap();
    train(&mut model, &spec, 0);
    optimizer.step(&mut model, 1e-2).unwrap();
    assert_ne!(weights(&model), before);
}

#[test]
fn a_step_without_a_gradient_is_refused() {
    let mut model = testing::model(&testing::spec(), ModelOptions::default());
    let error = AdamW::new(&model, &options()).unwrap().step(&mut model, 1e-2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "gradient must be computed before an optimizer step, got no training pass"
    );
}
