//! Knowledge distillation through a whole transformer.

use super::super::{LearningModel, Model, ModelOptions, testing};
use crate::{
    rollout::Dtype,
    trainer::{
        batch::MaskedSequence,
        config::{DistillOptions, Divergence, OptimizerConfig},
        distill::{Answers, TaughtSequence},
        offline::{Objective, Pass},
    },
};

const TOKENS: [&[u32]; 3] = [&[1, 5, 9, 3, 22, 7], &[4, 4, 8], &[2, 17, 11, 0, 6]];
const MASK: [bool; 6] = [false, false, true, true, true, true];

fn sequences() -> Vec<MaskedSequence<'static>> {
    TOKENS.map(|tokens| MaskedSequence { tokens, mask: &MASK[..tokens.len()] }).into()
}

fn taught(answers: &[Answers]) -> Vec<TaughtSequence<'_>> {
    let pairs = sequences().into_iter().zip(answers);
    pairs.map(|(sequence, answers)| TaughtSequence { sequence, answers }).collect()
}

fn options(kl: Divergence) -> DistillOptions {
    let (top_k, renormalize, temperature) = (6, false, 1.5);
    DistillOptions { kl, top_k, renormalize, temperature, sft_weight: 0.4, ..Default::default() }
}

fn model(seed: u64, options: ModelOptions) -> Model {
    let spec = testing::spec();
    Model::load(&spec, &testing::weights(&spec, seed), &options).unwrap()
}

fn learning(model: Model) -> LearningModel {
    LearningModel::new(model, &OptimizerConfig::default()).unwrap()
}

fn answers(options: &DistillOptions, seed: u64, of: ModelOptions) -> Vec<Answers> {
    options.ask(&model(seed, ModelOptions { frozen: true, ..of }), &sequences(), true).unwrap()
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let spec = testing::spec();
    for kl in [Divergence::Forward, Divergence::Backward, Divergence::Js] {
        let (options, of) = (options(kl), ModelOptions::default());
        let answers = answers(&options, 2, of);
        let taught = taught(&answers);
        let mut student = learning(model(1, of));
        options.pass(Pass::Train(&mut student), &taught).unwrap();
        for (name, gradient) in testing::values(&student.model.gradient().unwrap()) {
            let steepest = |a: &usize, b: &usize| gradient[*a].abs().total_cmp(&gradient[*b].abs());
            let index = (0..gradient.len()).max_by(steepest).unwrap();
            let value = testing::values(&testing::weights(&spec, 1))[&name][index];
            let at = |step: f32| {
                let weights = testing::weights_with(&spec, &name, index, value + step);
                let student = learning(Model::load(&spec, &weights, &of).unwrap());
                options.pass(Pass::Measure(&student), &taught).unwrap().loss
            };
            let slope = (at(4e-3) - at(-4e-3)) / 8e-3;
            let error = (slope - f64::from(gradient[index])).abs();
            let got = gradient[index];
            assert!(error < 2e-2 * slope.abs() + 3e-4, "{kl:?}, {name}[{index}]: {slope}, {got}");
        }
    }
}

#[test]
fn a_student_that_is_its_teacher_has_no_loss_and_no_gradient() {
    for compute in [Dtype::F32, Dtype::Bf16] {
        for autograd in [false, true] {
            let of = ModelOptions { compute, autograd, ..ModelOptions::default() };
            let options = DistillOptions { sft_weight: 0.0, ..options(Divergence::Backward) };
            let answers = answers(&options, 1, of);
            let mut student = learning(model(1, of));
            let found = options.pass(Pass::Train(&mut student), &taught(&answers)).unwrap();
            assert!(found.kd_loss.abs() < 1e-6, "{found:?}");
            assert_eq!(found.top_agreement, 1.0);
            let gradient = testing::values(&student.model.gradient().unwrap());
            let largest = gradient.values().flatten().fold(0.0f32, |most, d| most.max(d.abs()));
            assert!(largest < if compute == Dtype::F32 { 1e-5 } else { 1e-2 }, "{largest}");
        }
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let of = ModelOptions::default();
    let gradient = |micro_batch_tokens| {
        let options = DistillOptions { micro_batch_tokens, ..options(Divergence::Js) };
        let answers = answers(&options, 2, of);
        let mut student = learning(model(1, of));
        options.pass(Pass::Train(&mut student), &taught(&answers)).unwrap();
        testing::values(&student.model.gradient().unwrap())
    };
    let (whole, cut) = (gradient(100), gradient(1));
    for (name, whole) in whole {
        let apart =
            whole.iter().zip(&cut[&name]).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(apart < 1e-5, "{name}: {apart}");
    }
}
