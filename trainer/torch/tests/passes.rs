//! Passes of our own against libtorch's autograd.

use std::collections::BTreeMap;

use super::super::{
    AdamW, Entropy, LogprobOptions, Model, ModelOptions, TokenGradient, TokenLogprobs,
    cpu::use_kernels, libtorch, testing,
};
use crate::{
    model::{Head, ModelSpec},
    rollout::{Dtype, WeightVersion},
    simd::{KernelChoice, Kernels},
    trainer::{batch::PackedBatch, config::OptimizerConfig},
};

const TRAIN: LogprobOptions =
    LogprobOptions { temperature: 0.7, entropy: Entropy::Train, top: true };
const AUTOGRAD: ModelOptions = ModelOptions {
    device: crate::trainer::config::Device::Cpu,
    compute: Dtype::F32,
    activation_checkpointing: false,
    frozen: false,
    autograd: true,
};

/// Models of each kind, and one whose sizes are larger than a register, a tile or a part: 5 heads of 72 over 1.
fn specs() -> Vec<ModelSpec> {
    let wide = ModelSpec {
        hidden_size: 70,
        intermediate_size: 130,
        num_heads: 5,
        head_dim: 72,
        vocab_size: 301,
        max_positions: 256,
        qkv_bias: true,
        mlp_bias: true,
        ..testing::spec()
    };
    testing::specs().into_iter().chain([wide]).collect()
}

/// Sequences of odd lengths, some longer than a block of queries.
fn batch(spec: &ModelSpec) -> PackedBatch {
    let longest = spec.max_positions.min(83);
    let mut batch = PackedBatch::default();
    for (row, length) in [longest, 1, 33, 8].into_iter().enumerate() {
        let token = |t: usize| ((t * 7 + row * 5 + t * t) % spec.vocab_size) as u32;
        let tokens: Vec<u32> = (0..length).map(token).collect();
        let mask: Vec<bool> = (0..length).map(|t| t % 3 != 1).collect();
        batch.push(&tokens, &mask);
    }
    testing::with_candidates(batch, spec)
}

fn slopes(outputs: &TokenLogprobs) -> TokenGradient {
    let slope = |i: usize, by: usize| ((i * 13 + by) % 11) as f32 / 11.0 - 0.4;
    TokenGradient {
        logprobs: (0..outputs.logprobs.len()).map(|i| slope(i, 3)).collect(),
        entropy: (0..outputs.entropy.len()).map(|i| 0.3 * slope(i, 7)).collect(),
        candidates: (0..outputs.candidates.len()).map(|i| 0.5 * slope(i, 5)).collect(),
    }
}

/// What a pass sees, and the gradient it leaves.
fn pass(model: &mut Model, batch: &PackedBatch) -> (Vec<f32>, BTreeMap<String, Vec<f32>>) {
    let mut seen = Vec::new();
    match model.spec().head {
        Head::LanguageModel => model
            .train_logprobs(batch, &TRAIN, |outputs| {
                seen = [&outputs.logprobs[..], &outputs.entropy, &outputs.candidates].concat();
                slopes(outputs)
            })
            .unwrap(),
        Head::Score => model
            .train_values(batch, |values| {
                seen = values.to_vec();
                values.iter().map(|value| value - 0.2).collect()
            })
            .unwrap(),
    }
    (seen, testing::values(&model.gradient().unwrap()))
}

/// The distance of two vectors, relative to the second's length.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let apart = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (apart / norm(&mut b.iter().copied()).max(1e-24)).sqrt()
}

/// Lets this thread compute with each instruction set that the processor has, one after the other.
fn with_each_set(mut check: impl FnMut(Kernels)) {
    let choices = [KernelChoice::Portable, KernelChoice::Avx2, KernelChoice::Avx512];
    for kernels in choices.into_iter().filter_map(Kernels::select) {
        libtorch::set_threads(1).unwrap();
        use_kernels(kernels).unwrap();
        check(kernels);
    }
}

#[test]
fn both_see_the_same_and_leave_the_same_gradient() {
    with_each_set(|kernels| {
        for spec in specs() {
            let batch = batch(&spec);
            let of = |autograd| {
                let options = ModelOptions { autograd, ..ModelOptions::default() };
                pass(&mut testing::model(&spec, options), &batch)
            };
            let ((own, own_gradient), (seen, gradient)) = (of(false), of(true));
            let apart = distance(&own, &seen);
            assert!(apart < 1e-5, "{}, {spec:?}: {apart}", kernels.name());
            for (name, gradient) in &gradient {
                let apart = distance(&own_gradient[name], gradient);
                assert!(apart < 2e-5, "{}, {name} of {spec:?}: {apart}", kernels.name());
            }
        }
    });
}

#[test]
fn bf16_passes_are_as_near_to_f32_as_autograd_is() {
    with_each_set(|kernels| {
        for spec in specs() {
            let batch = batch(&spec);
            let (_, exact) = pass(&mut testing::model(&spec, AUTOGRAD), &batch);
            let apart = |autograd| {
                let options =
                    ModelOptions { compute: Dtype::Bf16, autograd, ..ModelOptions::default() };
                let (_, gradient) = pass(&mut testing::model(&spec, options), &batch);
                exact.iter().map(|(name, exact)| distance(&gradient[name], exact)).sum::<f64>()
            };
            let (own, autograd) = (apart(false), apart(true));
            let set = kernels.name();
            assert!(own < 1.2 * autograd, "{set}: {own} and {autograd}: {spec:?}");
        }
    });
}

#[test]
fn scoring_agrees_too() {
    for spec in specs() {
        let batch = batch(&spec);
        let model = |autograd| {
            testing::model(
                &spec,
                ModelOptions { autograd, frozen: true, ..ModelOptions::default() },
            )
        };
        let (own, autograd) = (model(false), model(true));
        if spec.head == Head::Score {
            let (a, b) = (own.scores(&batch).unwrap(), autograd.scores(&batch).unwrap());
            assert!(a.len() == 4 * spec.num_labels() && distance(&a, &b) < 1e-5, "{a:?} {b:?}");
            continue;
        }
        let (a, b) =
            (own.logprobs(&batch, &TRAIN).unwrap(), autograd.logprobs(&batch, &TRAIN).unwrap());
        assert_eq!(a.top, b.top);
        assert!(distance(&a.logprobs, &b.logprobs) < 1e-5);
        assert!(distance(&a.candidates, &b.candidates) < 1e-5);
        let (a, b) = (own.logits(&batch).unwrap(), autograd.logits(&batch).unwrap());
        assert!(distance(&a, &b) < 1e-5);
    }
}

#[test]
fn both_find_the_same_most_probable_tokens() {
    for spec in specs().into_iter().filter(|spec| spec.head == Head::LanguageModel) {
        let batch = batch(&spec);
        for compute in [Dtype::F32, Dtype::Bf16] {
            for count in [1, 7, spec.vocab_size] {
                let top = |autograd, max_logits| {
                    let options = ModelOptions { compute, autograd, ..ModelOptions::default() };
                    let mut model = testing::model(&spec, options);
                    model.head.max_logits = max_logits;
                    model.top_logprobs(&batch, count, 0.7).unwrap()
                };
                let (own, autograd) = (top(false, usize::MAX >> 8), top(true, usize::MAX >> 8));
                assert_eq!(own.ids.len(), batch.selected.len() * count);
                if compute == Dtype::F32 {
                    // Far down the list differences are smaller than roundings.
                    assert!(own.ids == autograd.ids || count > 7, "{count} of {spec:?}");
                    assert!(distance(&own.logprobs, &autograd.logprobs) < 1e-5);
                }
                let few = 3 * spec.vocab_size; // rows in parts
                assert!(distance(&top(false, few).logprobs, &own.logprobs) < 1e-6);
                assert!(distance(&top(true, few).logprobs, &autograd.logprobs) < 1e-6);
                for row in own.logprobs.chunks(count) {
                    assert!(row.is_sorted_by(|a, b| a >= b), "{row:?}");
                    let mass: f64 = row.iter().map(|&logprob| f64::from(logprob).exp()).sum();
                    let is_whole = (mass - 1.0).abs() < 1e-5;
                    assert!(is_whole || (mass < 1.0 && count < spec.vocab_size), "{mass}");
                }
            }
        }
    }
}

#[test]
fn of_equally_probable_tokens_the_one_with_the_smaller_id_comes_first() {
    let spec = testing::spec();
    let batch = batch(&spec);
    for autograd in [false, true] {
        let options = ModelOptions { autograd, frozen: true, ..ModelOptions::default() };
        // All final norms 0: so are all logits.
        let weights =
            testing::weights_like(&spec, |name| (name == "model.norm.weight").then_some(0.0));
        let model = Model::load(&spec, &weights, &options).unwrap();
        for count in [1, 4, 23] {
            let top = model.top_logprobs(&batch, count, 1.0).unwrap();
            let first: Vec<u32> = (0..count as u32).collect();
            assert!(top.ids.chunks(count).all(|row| row == first), "{:?}", top.ids);
        }
    }
}

#[test]
fn candidates_out_of_place_are_refused() {
    let spec = testing::spec();
    for autograd in [false, true] {
        let model = testing::model(&spec, ModelOptions { autograd, ..ModelOptions::default() });
        let refused = |candidates: Vec<u32>| {
            let batch = PackedBatch { candidates, ..testing::batch(&spec) };
            model.logprobs(&batch, &LogprobOptions::default()).unwrap_err().to_string()
        };
        assert_eq!(refused(vec![1; 13]), "candidates must be as many for each of 11 rows, got 13");
        assert_eq!(refused(vec![23; 11]), "candidates must be below 23, got 23");
        for count in [0, 24] {
            let error = model.top_logprobs(&testing::batch(&spec), count, 1.0).unwrap_err();
            let rule = "most probable tokens must be from 1 to the vocabulary's 23";
            assert_eq!(error.to_string(), format!("{rule}, got {count}"));
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit_of_a_small_pass() {
    let spec = &specs()[6];
    let batch = batch(spec);
    let with = |threads| {
        let mut model = testing::model(spec, ModelOptions::default());
        libtorch::set_threads(threads).unwrap();
        let found = pass(&mut model, &batch);
        libtorch::set_threads(1).unwrap();
        found
    };
    // These products are too small for libtorch to share out, so that all that differs is ours.
    assert_eq!(with(1), with(3));
}

#[test]
fn what_a_pass_leaves_behind_does_not_reach_the_next() {
    let spec = testing::spec();
    let alone = pass(&mut testing::model(&spec, ModelOptions::default()), &batch(&spec));
    for other in specs() {
        pass(&mut testing::model(&other, ModelOptions::default()), &batch(&other));
        let again = pass(&mut testing::model(&spec, ModelOptions::default()), &batch(&spec));
        assert_eq!(again, alone, "after {other:?}");
    }
}

#[test]
fn steps_of_both_optimizers_agree() {
    let spec = testing::spec();
    let options = OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() };
    let train = |autograd| {
        let options_of = ModelOptions { autograd, ..ModelOptions::default() };
        let mut model = testing::model(&spec, options_of);
        let mut optimizer = AdamW::new(&model, &options).unwrap();
        for lr in [1e-2, 0.0, 3e-3] {
            pass(&mut model, &batch(&spec));
            optimizer.step(&mut model, lr).unwrap();
        }
        testing::values(&model.weights(WeightVersion(0), Dtype::F32).unwrap())
    };
    let (own, autograd) = (train(false), train(true));
    for (name, weights) in &autograd {
        let apart = distance(&own[name], weights);
        assert!(apart < 1e-4, "{name}: {apart}");
    }
}
