//! Adapters, and models of which only a part learns: own passes against autograd, merged against applied.

use std::collections::BTreeMap;

use super::super::{
    AdamW, Entropy, LearningModel, Learns, LogprobOptions, Model, ModelOptions, TokenGradient,
    TokenLogprobs, testing,
};
use crate::{
    model::{Head, Lora, LoraTarget, ModelSpec},
    rollout::{Dtype, WeightVersion, Weights},
    trainer::{
        config::{Freeze, OptimizerConfig},
        learner::Learner,
    },
};

const TRAIN: LogprobOptions =
    LogprobOptions { temperature: 0.8, entropy: Entropy::Train, top: false };
const PLAIN: LogprobOptions =
    LogprobOptions { temperature: 0.8, entropy: Entropy::Measure, top: false };

/// Adapters everywhere; beside one part of each fused matrix, the first and the last; and with the other scale.
fn loras() -> Vec<Lora> {
    use LoraTarget::{AllLinear, DownProj, GateProj, KProj, OProj, QProj, UpProj, VProj};
    vec![
        testing::lora(&[AllLinear]),
        testing::lora(&[QProj, VProj]),
        testing::lora(&[KProj, OProj, UpProj]),
        Lora { rslora: true, ..testing::lora(&[GateProj, DownProj]) },
    ]
}

fn slopes(outputs: &TokenLogprobs) -> TokenGradient {
    let slope = |i: usize, by: usize| ((i * 13 + by) % 11) as f32 / 11.0 - 0.4;
    TokenGradient {
        logprobs: (0..outputs.logprobs.len()).map(|i| slope(i, 3)).collect(),
        entropy: (0..outputs.entropy.len()).map(|i| 0.3 * slope(i, 7)).collect(),
        ..TokenGradient::default()
    }
}

/// What a training pass sees, and the gradient it leaves.
fn pass(model: &mut Model) -> (Vec<f32>, BTreeMap<String, Vec<f32>>) {
    let (batch, mut seen) = (testing::batch(model.spec()), Vec::new());
    match model.spec().head {
        Head::LanguageModel => model
            .train_logprobs(&batch, &TRAIN, |outputs| {
                seen = [&outputs.logprobs[..], &outputs.entropy].concat();
                slopes(outputs)
            })
            .unwrap(),
        Head::Score => model
            .train_values(&batch, |values| {
                seen = values.to_vec();
                values.iter().map(|value| value - 0.2).collect()
            })
            .unwrap(),
    }
    (seen, testing::values(&model.gradient().unwrap()))
}

/// What a model says of a batch.
fn outputs(model: &Model) -> Vec<f32> {
    let batch = testing::batch(model.spec());
    match model.spec().head {
        Head::LanguageModel => {
            let outputs = model.logprobs(&batch, &PLAIN).unwrap();
            [outputs.logprobs, outputs.entropy].concat()
        }
        Head::Score => model.values(&batch).unwrap(),
    }
}

/// The loss whose slopes [`pass`] hands in.
fn loss(outputs: &[f32], head: Head) -> f64 {
    match head {
        Head::Score => outputs.iter().map(|x| 0.5 * f64::from(x - 0.2).powi(2)).sum(),
        Head::LanguageModel => {
            let (logprobs, entropy) = outputs.split_at(outputs.len() / 2);
            let (logprobs, entropy) = (logprobs.to_vec(), entropy.to_vec());
            let all = TokenLogprobs { logprobs, entropy, ..TokenLogprobs::default() };
            let slopes = slopes(&all);
            let sum =
                |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            sum(&all.logprobs, &slopes.logprobs) + sum(&all.entropy, &slopes.entropy)
        }
    }
}

/// The distance of two vectors, relative to the second's length.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (apart / norm(&mut b.iter().copied()).max(1e-24)).sqrt()
}

fn freeze(names: &[&str], layers: usize) -> Learns {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Learns { freeze: Freeze { names, layers }, ..Learns::default() }
}

fn optimizer() -> OptimizerConfig {
    OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() }
}

#[test]
fn own_passes_leave_autograds_gradient_in_an_adapter() {
    for (spec, lora) in
        testing::specs().iter().flat_map(|spec| loras().into_iter().map(move |lora| (spec, lora)))
    {
        let learns = testing::adapter(spec, &lora);
        let of = |autograd, activation_checkpointing| {
            let options = ModelOptions { autograd, activation_checkpointing, ..Default::default() };
            pass(&mut testing::learning(spec, options, &learns))
        };
        let ((own, own_gradient), (seen, gradient)) = (of(false, false), of(true, false));
        assert!(distance(&own, &seen) < 1e-5, "{spec:?}");
        let mut names: Vec<String> =
            lora.tensors(spec).into_iter().map(|tensor| tensor.name).collect();
        names.extend((spec.head == Head::Score).then(|| Head::SCORE.to_owned()));
        assert_eq!(names.len(), gradient.len(), "the adapter learns, and nothing else");
        for name in &names {
            let apart = distance(&own_gradient[name], &gradient[name]);
            assert!(apart < 2e-5, "{name} of {spec:?}: {apart}");
            assert!(gradient[name].iter().any(|&slope| slope != 0.0), "{name}");
        }
        assert_eq!(of(false, true).1, own_gradient);
        for (name, again) in of(true, true).1 {
            assert!(distance(&again, &gradient[&name]) < 1e-6, "{name}");
        }
    }
}

#[test]
fn the_gradient_of_an_adapter_is_the_slope_of_the_loss() {
    let lora = testing::lora(&[LoraTarget::AllLinear]);
    for spec in testing::specs() {
        let load = |learns: &Learns| testing::learning(&spec, ModelOptions::default(), learns);
        let learns = testing::adapter(&spec, &lora);
        let (_, gradient) = pass(&mut load(&learns));
        let values = testing::values(&learns.adapter.as_ref().unwrap().1);
        for (name, gradient) in gradient.iter().filter(|(name, _)| *name != Head::SCORE) {
            let steepest = |a: &usize, b: &usize| gradient[*a].abs().total_cmp(&gradient[*b].abs());
            let index = (0..gradient.len()).max_by(steepest).unwrap();
            let step = 4e-3;
            let at = |step: f32| {
                let value = values[name][index] + step;
                let learns = testing::adapter_with(&spec, &lora, name, index, value);
                loss(&outputs(&load(&learns)), spec.head)
            };
            let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
            let apart = (slope - f64::from(gradient[index])).abs();
            assert!(
                apart < 2e-2 * slope.abs() + 1e-3,
                "{name}[{index}]: {slope}, {}",
                gradient[index]
            );
        }
    }
}

#[test]
fn an_adapter_merged_equals_the_adapter_applied() {
    for (spec, lora) in
        testing::specs().iter().flat_map(|spec| loras().into_iter().map(move |lora| (spec, lora)))
    {
        let learns = testing::adapter(spec, &lora);
        for autograd in [false, true] {
            let options = ModelOptions { autograd, ..Default::default() };
            let applied = testing::learning(spec, options, &learns);
            let weights = applied.weights(WeightVersion(1), Dtype::F32).unwrap();
            weights.check_coverage(&spec.tensors()).unwrap();
            let merged = Model::load(spec, &weights, &options).unwrap();
            let apart = distance(&outputs(&applied), &outputs(&merged));
            assert!(apart < 1e-5, "{spec:?}: {apart}");
            let base = testing::model(spec, options);
            let moved = distance(&outputs(&applied), &outputs(&base));
            assert!(moved > 1e-2, "the adapter does something: {moved}");
        }
    }
}

#[test]
fn a_new_adapter_changes_no_bit_and_one_left_out_none_either() {
    for compute in [Dtype::F32, Dtype::Bf16] {
        for autograd in [false, true] {
            let spec = testing::spec();
            let options = ModelOptions { compute, autograd, ..Default::default() };
            let batch = testing::batch(&spec);
            let expected = testing::model(&spec, options).logprobs(&batch, &TRAIN).unwrap();
            let lora = testing::lora(&[LoraTarget::AllLinear]);
            let fresh = Learns {
                adapter: Some((lora.clone(), lora.random(&spec, 7))),
                ..Learns::default()
            };
            let fresh = testing::learning(&spec, options, &fresh);
            assert_eq!(fresh.logprobs(&batch, &TRAIN).unwrap(), expected);
            let trained = testing::learning(&spec, options, &testing::adapter(&spec, &lora));
            assert_ne!(trained.logprobs(&batch, &TRAIN).unwrap(), expected);
            assert_eq!(trained.bare_logprobs(&batch, &TRAIN).unwrap(), Some(expected));
            let plain = testing::model(&spec, options);
            assert_eq!(plain.bare_logprobs(&batch, &TRAIN).unwrap(), None);
        }
    }
}

#[test]
fn a_step_moves_the_adapter_and_no_other_weight() {
    for (compute, autograd) in [(Dtype::F32, false), (Dtype::Bf16, false), (Dtype::Bf16, true)] {
        let spec = testing::spec();
        let options = ModelOptions { compute, autograd, ..Default::default() };
        let lora = testing::lora(&[LoraTarget::QProj, LoraTarget::DownProj]);
        let mut model = testing::learning(&spec, options, &testing::adapter(&spec, &lora));
        let mut optimizer = AdamW::new(&model, &optimizer()).unwrap();
        let weights =
            |model: &Model| testing::values(&model.weights(WeightVersion(1), Dtype::F32).unwrap());
        let learned = |model: &Model| testing::values(&model.adapter().unwrap().unwrap());
        let (before, adapter, bare) =
            (weights(&model), learned(&model), model.bare_logprobs(&testing::batch(&spec), &TRAIN));
        for _ in 0..2 {
            pass(&mut model);
            optimizer.step(&mut model, 1e-2).unwrap();
        }
        for (name, after) in weights(&model) {
            assert_eq!(after != before[&name], lora.adapts(&name), "{name}");
        }
        for (name, after) in learned(&model) {
            assert!(after.iter().zip(&adapter[&name]).all(|(a, b)| a != b), "{name}");
        }
        let again = model.bare_logprobs(&testing::batch(&spec), &TRAIN);
        assert_eq!(again.unwrap(), bare.unwrap());
        let state = optimizer.state(&model).unwrap();
        assert_eq!(state.exp_avg.iter().count(), lora.tensors(&spec).len());
    }
}

#[test]
fn what_is_frozen_stays_and_the_rest_has_its_gradient() {
    for spec in testing::specs() {
        for learns in [
            freeze(&[], 1),
            freeze(&[], 2),
            freeze(&["model.layers.1.mlp.*"], 0),
            freeze(&["model.norm.weight", "model.embed*"], 0),
        ] {
            for (compute, autograd) in
                [(Dtype::F32, false), (Dtype::F32, true), (Dtype::Bf16, false)]
            {
                for activation_checkpointing in [false, true] {
                    let options = ModelOptions {
                        compute,
                        autograd,
                        activation_checkpointing,
                        ..Default::default()
                    };
                    let mut model = testing::learning(&spec, options, &learns);
                    let (_, all) = pass(&mut testing::model(&spec, options));
                    let (_, gradient) = pass(&mut model);
                    assert!(gradient.len() < all.len());
                    for (name, gradient) in &gradient {
                        assert!(learns.learns(name));
                        assert!(distance(gradient, &all[name]) < 1e-6, "{name} of {spec:?}");
                    }
                    let mut optimizer = AdamW::new(&model, &optimizer()).unwrap();
                    let weights = |model: &Model| {
                        testing::values(&model.weights(WeightVersion(1), Dtype::F32).unwrap())
                    };
                    let before = weights(&model);
                    optimizer.step(&mut model, 1e-2).unwrap();
                    for (name, after) in weights(&model) {
                        assert_eq!(after != before[&name], learns.learns(&name), "{name}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_cannot_learn_is_refused_in_a_line() {
    let spec: ModelSpec = testing::spec();
    let refused = |learns: &Learns| {
        let weights = testing::weights(&spec, 1);
        Model::load_with(&spec, &weights, &ModelOptions::default(), learns).unwrap_err().to_string()
    };
    let frozen = |names: &[&str]| freeze(names, 0);
    assert_eq!(
        refused(&frozen(&["model.layers.9.*"])),
        "frozen parameters must be names of the model's, got model.layers.9.*"
    );
    assert_eq!(
        refused(&frozen(&["*"])),
        "frozen parameters must be some of the model's, got all of them"
    );
    assert_eq!(
        refused(&frozen(&["model.layers.0.self_attn.k_proj.weight"])),
        "frozen parameters must be all of model.layers.0.self_attn.qkv_proj.weight or none, got \
         model.layers.0.self_attn.k_proj.weight"
    );
    let learns = freeze(&[], 3);
    assert_eq!(refused(&learns), "frozen layers must be at most the model's 2, got 3");
}

#[test]
fn an_average_follows_the_weights_and_goes_on_bit_for_bit() {
    let spec = testing::spec();
    let lora = testing::lora(&[LoraTarget::AllLinear]);
    for learns in [Learns::default(), testing::adapter(&spec, &lora)] {
        let load = || {
            let model = testing::learning(&spec, ModelOptions::default(), &learns);
            LearningModel::new(model, &optimizer()).unwrap().with_average(0.75).unwrap()
        };
        let of = |weights: Weights| testing::values(&weights);
        let mut learner = load();
        let mut expected = of(learner.model.learned().unwrap());
        for step in 0..3 {
            pass(&mut learner.model);
            learner.step(1e-2).unwrap();
            for (name, weights) in of(learner.model.learned().unwrap()) {
                let means = expected.get_mut(&name).unwrap();
                means.iter_mut().zip(weights).for_each(|(mean, x)| *mean = 0.75 * *mean + 0.25 * x);
            }
            let average = of(learner.average().unwrap().unwrap());
            for (name, mean) in &average {
                assert!(distance(mean, &expected[name]) < 1e-6, "{name} at step {step}");
            }
        }
        let average = learner.average().unwrap().unwrap();
        let mut resumed = load();
        resumed.model.replace_learned(&learner.model.learned().unwrap()).unwrap();
        resumed
            .optimizer
            .restore(&resumed.model, &learner.optimizer.state(&learner.model).unwrap())
            .unwrap();
        resumed.restore_average(&average).unwrap();
        for learner in [&mut learner, &mut resumed] {
            pass(&mut learner.model);
            learner.step(1e-2).unwrap();
        }
        let whole =
            |learner: &LearningModel| of(learner.averaged_weights(Dtype::F32).unwrap().unwrap());
        assert_eq!(whole(&resumed), whole(&learner));
        assert_ne!(
            whole(&learner),
            of(learner.model.weights(WeightVersion(1), Dtype::F32).unwrap())
        );
        // The average of an adapter is merged as the adapter itself would be.
        let mut at_average = load();
        at_average.model.replace_learned(&learner.average().unwrap().unwrap()).unwrap();
        assert_eq!(
            whole(&learner),
            of(at_average.model.weights(WeightVersion(1), Dtype::F32).unwrap())
        );
    }
    let model = testing::model(&spec, ModelOptions::default());
    let plain = LearningModel::new(model, &optimizer()).unwrap().with_average(0.0).unwrap();
    assert!(plain.average().unwrap().is_none());
}
