//! Models for tests: small, awkward in every size, and with every weight random.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    ffi::memory::{Lease, Memory},
    model::{Family, Head, ModelSpec, RopeScaling},
    rollout::{Dtype, WeightTensor, WeightVersion, Weights},
};

/// Returns a model of a family: odd head counts, head_dim not hidden / heads, sizes no register divides.
pub(crate) fn spec(family: Family) -> ModelSpec {
    let qwen3 = family == Family::Qwen3;
    ModelSpec {
        family,
        head: Head::LanguageModel,
        labels: Vec::new(),
        hidden_size: 36,
        intermediate_size: 53,
        num_layers: 2,
        num_heads: 6,
        num_kv_heads: if qwen3 { 3 } else { 2 },
        head_dim: if family == Family::Mistral { 42 } else { 10 },
        vocab_size: 101,
        max_positions: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: (family == Family::Llama).then_some(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 32,
        }),
        sliding_window: (family == Family::Mistral).then_some(7),
        qkv_bias: family == Family::Qwen2,
        o_bias: false,
        mlp_bias: false,
        qk_norm: qwen3,
        tie_word_embeddings: qwen3,
        dtype: Dtype::F32,
    }
}

/// Returns weights in the spec's format, all of them random: norms around 1, the rest as wide as keeps activations
/// near 1.
pub(crate) fn random_weights(spec: &ModelSpec, seed: u64) -> Weights {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let lease = Lease::default();
    let mut tensors = BTreeMap::new();
    for tensor in spec.tensors() {
        let count = tensor.shape.iter().product();
        let norm = tensor.name.ends_with("norm.weight");
        let width = if norm { 0.5 } else { 2.0 / (spec.hidden_size as f32).sqrt() };
        let center = if norm { 1.0 } else { 0.0 };
        let numbers =
            (0..count).map(|_| center + width * (random.random::<f32>() - 0.5) * 2.0).collect();
        tensors.insert(tensor.name, of_numbers(numbers, tensor.shape, spec.dtype, &lease));
    }
    Weights::new(WeightVersion(seed), lease, tensors)
}

/// Returns a tensor of these numbers.
pub(crate) fn of_numbers(
    numbers: Vec<f32>,
    shape: Vec<usize>,
    dtype: Dtype,
    lease: &Lease,
) -> WeightTensor {
    let memory = match dtype {
        Dtype::F32 => Memory::from_vec(numbers, lease),
        Dtype::Bf16 => {
            let halves: Vec<_> = numbers.into_iter().map(half::bf16::from_f32).collect();
            Memory::from_vec(halves, lease)
        }
        Dtype::F16 => {
            let halves: Vec<_> = numbers.into_iter().map(half::f16::from_f32).collect();
            Memory::from_vec(halves, lease)
        }
    };
    WeightTensor { dtype, shape, memory }
}

/// Returns a tensor's numbers.
pub(crate) fn numbers(weights: &Weights, name: &str) -> Vec<f32> {
    let tensor = weights.get(name).expect("a tensor of the model");
    let reading =
        weights.lease().read(std::time::Duration::from_secs(1)).expect("nobody writes in tests");
    match tensor.dtype {
        Dtype::F32 => tensor.f32(&reading).to_vec(),
        Dtype::Bf16 => tensor.bf16(&reading).iter().map(|x| x.to_f32()).collect(),
        Dtype::F16 => {
            let halves: &[half::f16] = bytemuck::cast_slice(tensor.memory.bytes(&reading));
            halves.iter().map(|x| x.to_f32()).collect()
        }
    }
}

/// Returns the same weights with one number changed.
pub(crate) fn with_number(weights: &Weights, name: &str, index: usize, number: f32) -> Weights {
    let lease = Lease::default();
    let changed = |(other, tensor): (&str, &WeightTensor)| {
        let mut numbers = numbers(weights, other);
        if other == name {
            numbers[index] = number;
        }
        let tensor = of_numbers(numbers, tensor.shape.clone(), tensor.dtype, &lease);
        (other.to_owned(), tensor)
    };
    let tensors = weights.iter().map(changed).collect();
    Weights::new(weights.version().next(), lease, tensors)
}
