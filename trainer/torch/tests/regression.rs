//! Regression over attributes through a small model: its gradient is the slope of the masked loss, whatever the micro-batches.

use std::collections::BTreeMap;

use super::super::{LearningModel, Model, ModelOptions, testing};
use crate::{
    model::{Head, ModelSpec},
    trainer::{
        config::{OptimizerConfig, RegressionOptions},
        offline::{Objective, Pass},
        regression::RatedSequence,
    },
};

/// Some attributes of each are not rated.
const ROWS: [RatedSequence<'static>; 4] = [
    RatedSequence { tokens: &[3, 7, 1], ratings: &[Some(1.0), None, Some(-0.5)] },
    RatedSequence { tokens: &[5], ratings: &[None, Some(2.0), None] },
    RatedSequence { tokens: &[2, 2, 9, 4, 6], ratings: &[Some(0.5), Some(0.0), Some(1.5)] },
    RatedSequence { tokens: &[8, 1], ratings: &[None, None, Some(3.0)] },
];

fn spec() -> ModelSpec {
    testing::spec().with_labels(&names())
}

fn names() -> Vec<String> {
    ["helpfulness", "correctness", "verbosity"].map(String::from).to_vec()
}

fn options(micro_batch_tokens: usize) -> RegressionOptions {
    RegressionOptions { micro_batch_tokens, attributes: names(), ..RegressionOptions::default() }
}

fn gradient(options: &RegressionOptions, autograd: bool) -> (f64, BTreeMap<String, Vec<f32>>) {
    let model = testing::model(&spec(), ModelOptions { autograd, ..ModelOptions::default() });
    let mut learner = LearningModel::new(model, &OptimizerConfig::default()).unwrap();
    let stats = options.pass(Pass::Train(&mut learner), &ROWS).unwrap();
    (stats.loss, testing::values(&learner.model.gradient().unwrap()))
}

#[test]
fn the_gradient_is_the_slope_of_the_masked_loss() {
    let (_, gradient) = gradient(&options(1000), false);
    let loss = |name: &str, index: usize, step: f32| {
        let value = testing::values(&testing::weights(&spec(), 1))[name][index];
        let weights = testing::weights_with(&spec(), name, index, value + step);
        let model = Model::load(&spec(), &weights, &ModelOptions::default()).unwrap();
        let learner = LearningModel::new(model, &OptimizerConfig::default()).unwrap();
        options(1000).pass(Pass::Measure(&learner), &ROWS).unwrap().loss
    };
    for (name, gradient) in &gradient {
        // Of the head every label's steepest weight, of the others the steepest one.
        let width = if name == Head::SCORE { spec().hidden_size } else { gradient.len() };
        for start in (0..gradient.len()).step_by(width) {
            let steepest = |a: &usize, b: &usize| gradient[*a].abs().total_cmp(&gradient[*b].abs());
            let index = (start..start + width).max_by(steepest).unwrap();
            let step = 4e-3;
            let slope =
                (loss(name, index, step) - loss(name, index, -step)) / (2.0 * f64::from(step));
            let error = (slope - f64::from(gradient[index])).abs();
            assert!(
                error < 2e-2 * slope.abs() + 1e-3,
                "{name}[{index}]: {slope}, {}",
                gradient[index]
            );
        }
    }
}

#[test]
fn neither_micro_batches_nor_the_way_of_computing_change_the_gradient() {
    let (loss, whole) = gradient(&options(1000), false);
    for (budget, autograd) in [(1, false), (4, false), (1000, true), (4, true)] {
        let (other_loss, other) = gradient(&options(budget), autograd);
        assert!((loss - other_loss).abs() < 1e-5);
        for (name, whole) in &whole {
            let norm = whole.iter().map(|x| x * x).sum::<f32>().sqrt();
            let apart = whole.iter().zip(&other[name]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            assert!(apart.sqrt() < 2e-5 * norm.max(1e-3), "{name}: {}", apart.sqrt());
        }
    }
}
