use std::time::Duration;

use super::super::{AdamW, Error, LogprobOptions, Model, ModelOptions, TokenGradient, testing};
use crate::{
    model::{
        Head,
        tensorrt_llm::{Layout, tensors},
    },
    rollout::{Dtype, WeightVersion},
    trainer::config::OptimizerConfig,
};

const SECOND: Duration = Duration::from_secs(1);

fn step(model: &mut Model, optimizer: &mut AdamW) -> Result<(), Error> {
    let batch = testing::batch(&testing::spec());
    model.train_logprobs(&batch, &LogprobOptions::default(), |outputs| TokenGradient {
        logprobs: vec![-1.0; outputs.logprobs.len()],
        ..TokenGradient::default()
    })?;
    optimizer.step(model, 1e-2).map(|_| ())
}

#[test]
fn what_went_in_comes_out() {
    for spec in testing::specs() {
        let weights = testing::weights(&spec, 1);
        let model = Model::load(&spec, &weights, &ModelOptions::default()).unwrap();
        let out = model.weights(WeightVersion(3), Dtype::F32).unwrap();
        assert_eq!(out.version(), WeightVersion(3));
        out.check_coverage(&spec.tensors()).unwrap();
        assert_eq!(testing::values(&out), testing::values(&weights));
    }
}

#[test]
fn an_alias_keeps_its_place_and_sees_each_step() {
    for compute in [Dtype::F32, Dtype::Bf16] {
        let spec = testing::spec();
        let mut model = testing::model(&spec, ModelOptions { compute, ..ModelOptions::default() });
        let mut optimizer = AdamW::new(&model, &OptimizerConfig::default()).unwrap();
        let alias = model.weights(WeightVersion(0), compute).unwrap();
        let writes = alias.lease().writes();
        let before = alias.checksum(&alias.lease().read(SECOND).unwrap());
        step(&mut model, &mut optimizer).unwrap();
        assert_eq!(alias.lease().writes(), writes + 1);
        assert_ne!(alias.checksum(&alias.lease().read(SECOND).unwrap()), before);
        let again = model.weights(WeightVersion(1), compute).unwrap();
        for ((name, old), (_, new)) in alias.iter().zip(again.iter()) {
            assert_eq!(old.memory.address(), new.memory.address(), "{name}");
        }
    }
}

#[test]
fn another_format_is_a_copy_that_stays() {
    let mut model = testing::model(&testing::spec(), ModelOptions::default());
    let mut optimizer = AdamW::new(&model, &OptimizerConfig::default()).unwrap();
    let copy = model.weights(WeightVersion(0), Dtype::Bf16).unwrap();
    let before = copy.checksum(&copy.lease().read(SECOND).unwrap());
    let reading = copy.lease().read(SECOND).unwrap();
    step(&mut model, &mut optimizer).unwrap();
    assert_eq!(copy.checksum(&reading), before);
}

#[test]
fn an_alias_outlives_its_model() {
    let spec = testing::spec();
    let alias = testing::model(&spec, ModelOptions::default())
        .weights(WeightVersion(0), Dtype::F32)
        .unwrap();
    assert_eq!(testing::values(&alias), testing::values(&testing::weights(&spec, 1)));
}

#[test]
fn replaced_weights_are_all_replaced() {
    let spec = testing::spec();
    let mut model =
        testing::model(&spec, ModelOptions { compute: Dtype::Bf16, ..ModelOptions::default() });
    let other = testing::weights(&spec, 9);
    model.replace_learned(&other).unwrap();
    let batch = testing::batch(&spec);
    let fresh = Model::load(&spec, &other, model.options()).unwrap();
    let options = LogprobOptions::default();
    assert_eq!(
        model.logprobs(&batch, &options).unwrap(),
        fresh.logprobs(&batch, &options).unwrap()
    );
    let bad = testing::weights_with(&spec, "model.norm.weight", 0, f32::INFINITY);
    model.replace_learned(&bad).unwrap_err();
    assert_eq!(
        model.logprobs(&batch, &options).unwrap(),
        fresh.logprobs(&batch, &options).unwrap()
    );
}

#[test]
fn tensorrt_llm_finds_every_tensor_in_place() {
    let language_models = testing::specs().into_iter().filter(|s| s.head == Head::LanguageModel);
    for spec in language_models {
        for (compute, fused) in [(Dtype::F32, true), (Dtype::Bf16, true), (Dtype::Bf16, false)] {
            let options = ModelOptions { compute, ..ModelOptions::default() };
            let model = testing::model(&spec, options);
            let alias = model.device_weights(WeightVersion(1), compute).unwrap();
            let layout = Layout::checkpoint(1).engine(&spec, fused);
            let reading = alias.lease().read(SECOND).unwrap();
            for mapped in tensors(&spec, &layout, 0).unwrap() {
                let memory = mapped.in_place(&alias, compute).expect(&mapped.name);
                let mut copied = vec![0; memory.len()];
                mapped.gather(&alias, &reading, compute, &mut copied).unwrap();
                assert_eq!(memory.bytes(&reading), copied, "{}", mapped.name);
            }
        }
    }
}
