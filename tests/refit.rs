//! The trainer's weights in the engine: after every refit both compute the same, and a refit that fails is as if it had
//! never been tried.
#![cfg(feature = "libtorch")]
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::{collections::BTreeMap, time::Duration};

use rollforge::{
    engine::{
        Engine, EngineConfig, EngineModel, Error, RefitMode, Request, SamplingParams,
        native::Forward,
    },
    ffi::memory::{Lease, Memory},
    model::Checkpoint,
    rollout::{Dtype, Prompt, PromptId, Rollout, WeightTensor, WeightVersion, Weights},
    trainer::{
        batch::PackedBatch,
        config::OptimizerConfig,
        learner::{LanguageLearner, LanguageModel, Learner, LogprobOptions, TokenGradient},
        torch::{LearningModel, Model, ModelOptions, libtorch},
    },
};

const FAMILIES: [&str; 6] =
    ["llama", "llama-linear", "llama-tied-llama3", "mistral", "qwen2", "qwen3"];

/// Relative to log-probs, which are of the order of ten here.
const TOLERANCE: f32 = 1e-4;

/// A policy that learns, and an engine that has its first weights.
struct Pair {
    policy: LearningModel,
    engine: Engine,
}

impl Pair {
    fn new(name: &str) -> Self {
        libtorch::set_threads(1).unwrap(); // the tests run side by side
        let checkpoint = Checkpoint::open(&support::golden(name)).unwrap();
        let (spec, weights) = (checkpoint.spec().clone(), checkpoint.weights(Dtype::F32).unwrap());
        let model = Model::load(&spec, &weights, &ModelOptions::default()).unwrap();
        let config = EngineConfig { threads: 1, kv_cache_tokens: 512, ..EngineConfig::default() };
        let model_of_engine = EngineModel { spec, weights, eos: vec![], tokenizer: None };
        Self {
            policy: LearningModel::new(model, &OptimizerConfig::default()).unwrap(),
            engine: Engine::builder().config(config).model(model_of_engine).build().unwrap(),
        }
    }

    fn weights(&self, version: u64) -> Weights {
        self.policy.model.weights(WeightVersion(version), Dtype::F32).unwrap()
    }

    /// Moves every weight: one step towards a made-up sequence.
    fn learn(&mut self, seed: u32) {
        let tokens: Vec<u32> = (0..20).map(|t| (t * t * 7 + t * seed + 3) % 59).collect();
        let mut loss = |tokens: &rollforge::trainer::learner::TokenLogprobs| TokenGradient {
            logprobs: vec![-1.0 / tokens.logprobs.len() as f32; tokens.logprobs.len()],
            ..TokenGradient::default()
        };
        let batch = batch(&tokens);
        self.policy.train_logprobs(&batch, &LogprobOptions::at(1.0), &mut loss).unwrap();
        self.policy.step(0.02).unwrap();
    }

    fn try_rollouts(&self) -> Result<Vec<Rollout>, Error> {
        let sampling = SamplingParams {
            max_new_tokens: 12,
            n: 2,
            seed: 5,
            temperature: 0.9,
            raw_logprobs: true,
            ..SamplingParams::default()
        };
        let sampling = std::sync::Arc::new(sampling);
        let prompt = |id| Prompt { id: PromptId(id), tokens: vec![4, 9, id as u32, 30].into() };
        let requests = (0..3).map(|id| Request::new(prompt(id), sampling.clone())).collect();
        self.engine.blocking().generate_all(requests)
    }

    fn rollouts(&self) -> Vec<Rollout> {
        self.try_rollouts().unwrap()
    }

    /// Compares the engine's log-probs of what it sampled, and of its prompts, with the trainer's.
    fn assert_agree(&self, version: u64) {
        for rollout in self.rollouts() {
            assert_eq!(rollout.versions.len(), 1);
            assert_eq!(rollout.versions[0].version, WeightVersion(version));
            assert_eq!(rollout.versions[0].tokens as usize, rollout.completion.len());
            let sequence = rollout.sequence();
            let options = LogprobOptions::at(1.0);
            let trainer = self.policy.logprobs(&batch(&sequence), &options).unwrap().logprobs;
            assert_close(&self.engine.blocking().score(sequence.clone()).unwrap(), &trainer);
            let completion = &trainer[sequence.len() - 1 - rollout.completion.len()..];
            assert_close(rollout.raw_logprobs.as_ref().unwrap(), completion);
        }
    }
}

/// A batch of one sequence that asks for every token but the first.
fn batch(tokens: &[u32]) -> PackedBatch {
    let mut batch = PackedBatch::default();
    batch.push(tokens, &vec![true; tokens.len()]);
    batch
}

fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        let error = (got - expected).abs() / expected.abs().max(1.0);
        assert!(error < TOLERANCE, "the engine has {got}, the trainer {expected}");
    }
}

/// Every tensor as numbers of its own.
fn copied(weights: &Weights) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let reading = weights.lease().read(Duration::from_secs(10)).unwrap();
    let copy = |(name, tensor): (&str, &WeightTensor)| {
        (name.to_owned(), (tensor.shape.clone(), tensor.f32(&reading).to_vec()))
    };
    weights.iter().map(copy).collect()
}

fn gathered(version: u64, tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Weights {
    let lease = Lease::default();
    let tensor = |(name, (shape, numbers)): (String, (Vec<usize>, Vec<f32>))| {
        (name, WeightTensor { dtype: Dtype::F32, shape, memory: Memory::from_vec(numbers, &lease) })
    };
    let tensors = tensors.into_iter().map(tensor).collect();
    Weights::new(WeightVersion(version), lease.clone(), tensors)
}

#[test]
fn the_engine_agrees_with_the_trainer_after_every_refit() {
    for name in FAMILIES {
        let mut pair = Pair::new(name);
        pair.assert_agree(0);
        for (version, mode) in
            [RefitMode::Alias, RefitMode::Copy, RefitMode::Alias, RefitMode::Copy]
                .into_iter()
                .enumerate()
                .map(|(refits, mode)| (refits as u64 + 1, mode))
        {
            let before = pair.rollouts();
            pair.learn(version as u32);
            let weights = pair.weights(version);
            let report = pair.engine.blocking().refit(&weights, mode).unwrap();
            assert_eq!((report.version, report.mode), (WeightVersion(version), mode));
            let copied = if mode == RefitMode::Copy { weights.bytes() } else { 0 };
            assert_eq!(report.bytes, copied, "{name}");
            pair.assert_agree(version);
            assert_ne!(before, pair.rollouts(), "{name}: the step moved the policy");
        }
    }
}

#[test]
fn an_alias_is_the_trainers_own_memory() {
    let mut pair = Pair::new("qwen3");
    let spec = pair.policy.model.spec().clone();
    let mut cpu = support::cpu(&spec, &pair.weights(0), 8);
    pair.learn(1);
    cpu.refit(&pair.weights(1), RefitMode::Alias, false).unwrap();
    let of_trainer = pair.weights(2);
    let mut tensors = 0;
    for (name, tensor) in cpu.weights().iter() {
        let theirs = of_trainer.get(name).unwrap();
        assert_eq!(tensor.memory.address(), theirs.memory.address(), "{name}");
        tensors += 1;
    }
    assert_eq!(tensors, spec.tensors().len());
}

#[test]
fn an_alias_that_was_written_to_is_refused_until_the_refit() {
    let mut pair = Pair::new("llama");
    pair.engine.blocking().refit(&pair.weights(1), RefitMode::Alias).unwrap();
    pair.rollouts();
    pair.learn(1);
    let error = pair.try_rollouts().unwrap_err().to_string();
    assert!(error.contains("version 1 were written to since they were aliased"), "{error}");
    pair.engine.blocking().refit(&pair.weights(2), RefitMode::Alias).unwrap();
    pair.assert_agree(2);
}

#[test]
fn a_copy_goes_on_serving_while_the_trainer_moves_on() {
    let mut pair = Pair::new("mistral");
    pair.engine.blocking().refit(&pair.weights(1), RefitMode::Copy).unwrap();
    let before = pair.rollouts();
    pair.learn(1);
    assert_eq!(before, pair.rollouts());
}

#[test]
fn a_failure_at_any_tensor_leaves_the_old_version_serving_bit_for_bit() {
    let mut pair = Pair::new("llama-linear");
    pair.engine.blocking().refit(&pair.weights(1), RefitMode::Copy).unwrap();
    let before = pair.rollouts();
    pair.learn(1);
    let good = copied(&pair.weights(2));
    for name in good.keys() {
        for mode in [RefitMode::Alias, RefitMode::Copy] {
            let mut bad = good.clone();
            *bad.get_mut(name).unwrap().1.last_mut().unwrap() = f32::NAN;
            let error = pair.engine.blocking().refit(&gathered(2, bad), mode).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(&format!("failed at {name}, version 1 goes on")), "{message}");
        }
    }
    assert_eq!(pair.engine.stats().version, WeightVersion(1));
    assert_eq!(before, pair.rollouts());
    pair.engine.blocking().refit(&gathered(2, good), RefitMode::Copy).unwrap();
    pair.assert_agree(2);
}

#[test]
fn weights_of_another_model_are_refused_by_name() {
    let pair = Pair::new("qwen2");
    let before = pair.rollouts();
    let mut tensors = copied(&pair.weights(1));
    let bias = tensors.remove("model.layers.1.self_attn.k_proj.bias").unwrap();
    tensors.insert("model.layers.2.self_attn.k_proj.bias".into(), bias);
    tensors.get_mut("model.norm.weight").unwrap().0 = vec![2, 12];
    let weights = gathered(1, tensors);
    for mode in [RefitMode::Alias, RefitMode::Copy] {
        let error = pair.engine.blocking().refit(&weights, mode).unwrap_err().to_string();
        assert_eq!(
            error,
            "refit to version 1 refused, version 0 goes on serving: the weights do not cover the model: \
             missing model.layers.1.self_attn.k_proj.bias; extra model.layers.2.self_attn.k_proj.bias; \
             model.norm.weight must be [24], got [2, 12]"
        );
    }
    assert_eq!(before, pair.rollouts());
}

#[test]
fn the_checksum_is_that_of_the_trainers_weights() {
    let mut pair = Pair::new("qwen3");
    pair.learn(1);
    let weights = pair.weights(1);
    let reading = weights.lease().read(Duration::from_secs(10)).unwrap();
    let expected = weights.checksum(&reading);
    drop(reading);
    for mode in [RefitMode::Alias, RefitMode::Copy] {
        let report = pair.engine.blocking().refit_with_checksum(&weights, mode).unwrap();
        assert_eq!(report.checksum.as_ref(), Some(&expected));
    }
}
