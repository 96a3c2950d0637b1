//! Small models with every weight random, for tests.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Learns, Model, ModelOptions, libtorch};
use crate::{
    ffi::memory::{Lease, Memory},
    model::{Family, Head, Lora, LoraTarget, ModelSpec, RopeScaling},
    rollout::{Dtype, TensorSpec, WeightTensor, WeightVersion, Weights},
    trainer::batch::PackedBatch,
};

/// Odd sizes throughout: 3 heads over 1, `head_dim` not `hidden / heads`, a vocabulary that is no multiple of 8.
pub(super) fn spec() -> ModelSpec {
    ModelSpec {
        family: Family::Llama,
        head: Head::LanguageModel,
        labels: Vec::new(),
        hidden_size: 10,
        intermediate_size: 14,
        num_layers: 2,
        num_heads: 3,
        num_kv_heads: 1,
        head_dim: 6,
        vocab_size: 23,
        max_positions: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: false,
        dtype: Dtype::F32,
    }
}

/// One model of each kind.
pub(super) fn specs() -> Vec<ModelSpec> {
    let base = spec();
    vec![
        base.clone(),
        ModelSpec { family: Family::Mistral, sliding_window: Some(3), ..base.clone() },
        ModelSpec {
            family: Family::Qwen2,
            qkv_bias: true,
            tie_word_embeddings: true,
            ..base.clone()
        },
        ModelSpec {
            family: Family::Qwen3,
            qk_norm: true,
            num_heads: 4,
            num_kv_heads: 2,
            ..base.clone()
        },
        ModelSpec {
            o_bias: true,
            mlp_bias: true,
            qkv_bias: true,
            rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }),
            ..base.clone()
        },
        base.with_head(Head::Score),
        base.with_labels(&["a", "b", "c"].map(String::from)),
    ]
}

pub(super) fn weights(spec: &ModelSpec, seed: u64) -> Weights {
    build(spec, seed, |_, _| ())
}

/// The weights of seed 1 with one number changed.
pub(super) fn weights_with(spec: &ModelSpec, name: &str, index: usize, value: f32) -> Weights {
    build(spec, 1, |tensor, values| {
        if tensor == name {
            values[index] = value;
        }
    })
}

/// The weights of seed 1, some tensors filled with one number.
pub(super) fn weights_like(spec: &ModelSpec, fill: impl Fn(&str) -> Option<f32>) -> Weights {
    build(spec, 1, |tensor, values| {
        if let Some(value) = fill(tensor) {
            values.fill(value);
        }
    })
}

fn build(spec: &ModelSpec, seed: u64, change: impl Fn(&str, &mut [f32])) -> Weights {
    random(spec.tensors(), seed, change)
}

fn random(tensors: Vec<TensorSpec>, seed: u64, change: impl Fn(&str, &mut [f32])) -> Weights {
    // Tests run side by side, and these models are too small to share out.
    libtorch::set_threads(1).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    let lease = Lease::default();
    let mut all = BTreeMap::new();
    for tensor in tensors {
        let elements: usize = tensor.shape.iter().product();
        let (mean, spread) =
            if tensor.name.ends_with("norm.weight") { (1.0, 0.3) } else { (0.0, 0.5) };
        let mut values: Vec<f32> =
            (0..elements).map(|_| mean + spread * rng.random_range(-1.0..1.0f32)).collect();
        change(&tensor.name, &mut values);
        let memory = Memory::from_vec(values, &lease);
        all.insert(tensor.name, WeightTensor { dtype: Dtype::F32, shape: tensor.shape, memory });
    }
    Weights::new(WeightVersion::default(), lease, all)
}

/// An adapter beside some of a layer's matrices, or all of them.
pub(super) fn lora(targets: &[LoraTarget]) -> Lora {
    Lora { rank: 3, alpha: 5.0, dropout: 0.0, rslora: false, targets: targets.to_vec() }
}

/// A random adapter whose B is not zero.
pub(super) fn adapter(spec: &ModelSpec, lora: &Lora) -> Learns {
    adapter_with(spec, lora, "", 0, 0.0)
}

/// The same adapter with one number changed.
pub(super) fn adapter_with(
    spec: &ModelSpec,
    lora: &Lora,
    name: &str,
    index: usize,
    value: f32,
) -> Learns {
    let tensors = random(lora.tensors(spec), 3, |tensor, values| {
        if tensor == name {
            values[index] = value;
        }
    });
    Learns { adapter: Some((lora.clone(), tensors)), ..Learns::default() }
}

/// The model of seed 1, of which only a part learns.
pub(super) fn learning(spec: &ModelSpec, options: ModelOptions, learns: &Learns) -> Model {
    Model::load_with(spec, &weights(spec, 1), &options, learns).unwrap()
}

pub(super) fn model(spec: &ModelSpec, options: ModelOptions) -> Model {
    Model::load(spec, &weights(spec, 1), &options).unwrap()
}

/// Three sequences of different lengths, about half of their tokens selected.
pub(super) fn batch(spec: &ModelSpec) -> PackedBatch {
    let mut rng = StdRng::seed_from_u64(2);
    let mut batch = PackedBatch::default();
    for length in [7, 1, 12] {
        let tokens: Vec<u32> =
            (0..length).map(|_| rng.random_range(0..spec.vocab_size as u32)).collect();
        let mask: Vec<bool> = (0..length).map(|t| t % 3 != 1).collect();
        batch.push(&tokens, &mask);
    }
    batch
}

/// The same with candidates of each selected row: different ones, the next token among those of every other row.
pub(super) fn with_candidates(mut batch: PackedBatch, spec: &ModelSpec) -> PackedBatch {
    let vocab = spec.vocab_size as u32;
    let of =
        |(n, target): (usize, u32)| (0..5).map(move |k| (target + n as u32 % 2 + 3 * k) % vocab);
    batch.candidates = batch.targets().enumerate().flat_map(of).collect();
    batch
}

/// Copies every f32 tensor out, by name.
pub(super) fn values(weights: &Weights) -> BTreeMap<String, Vec<f32>> {
    let reading = weights.lease().read(Duration::from_secs(1)).unwrap();
    weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.f32(&reading).to_vec())).collect()
}
