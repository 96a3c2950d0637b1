//! The weight map against itself, against an unsharded computation, and on a disk.

mod checkpoint;
mod directories;
mod names;
mod refusals;
mod round_trip;
mod sharded;

use super::*;
use crate::{
    model::{Family, Head, Init, ModelSpec, random_weights},
    rollout::{Dtype, Weights},
};

/// A small Llama with biases everywhere and every size of its own.
fn llama() -> ModelSpec {
    ModelSpec {
        family: Family::Llama,
        head: Head::LanguageModel,
        labels: Vec::new(),
        hidden_size: 24,
        intermediate_size: 40,
        num_layers: 2,
        num_heads: 8,
        num_kv_heads: 2,
        head_dim: 6,
        vocab_size: 37,
        max_positions: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: false,
        tie_word_embeddings: false,
        dtype: Dtype::F32,
    }
}

/// One model of each family.
fn families() -> [ModelSpec; 4] {
    let base = ModelSpec { qkv_bias: false, o_bias: false, mlp_bias: false, ..llama() };
    [
        llama(),
        ModelSpec { family: Family::Mistral, ..base.clone() },
        ModelSpec {
            family: Family::Qwen2,
            qkv_bias: true,
            tie_word_embeddings: true,
            ..base.clone()
        },
        ModelSpec { family: Family::Qwen3, qk_norm: true, ..base },
    ]
}

/// Weights whose every number is another one, biases and norms included: random ones would let an exchange of two zero
/// biases pass.
fn weights(spec: &ModelSpec) -> Weights {
    let random = random_weights(spec, Init { std: 0.5, seed: 3 });
    let reading = random.lease().read(std::time::Duration::ZERO).unwrap();
    let mut next = 0u16;
    let tensors = random.iter().map(|(name, tensor)| {
        let bytes = tensor.memory.bytes(&reading);
        let mut bytes = bytes.to_vec();
        if tensor.shape.len() == 1 {
            for number in bytes.chunks_mut(tensor.dtype.size()) {
                next += 1;
                let value = f32::from(next) / 64.0 - 2.0;
                crate::model::convert::convert_into(
                    &value.to_le_bytes(),
                    Dtype::F32,
                    number,
                    tensor.dtype,
                );
            }
        }
        let memory =
            crate::model::convert::convert(&bytes, tensor.dtype, tensor.dtype, random.lease());
        let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
        (name.to_owned(), crate::rollout::WeightTensor { dtype, shape, memory })
    });
    Weights::new(random.version(), random.lease().clone(), tensors.collect())
}

/// The same weights but for a tensor's first number.
fn with_number(weights: &Weights, name: &str, number: f32) -> Weights {
    let reading = weights.lease().read(std::time::Duration::ZERO).unwrap();
    let tensors = weights.iter().map(|(other, tensor)| {
        let mut tensor = tensor.clone();
        if other == name {
            let mut values = tensor.f32(&reading).to_vec();
            values[0] = number;
            tensor.memory = crate::ffi::memory::Memory::from_vec(values, weights.lease());
        }
        (other.to_owned(), tensor)
    });
    Weights::new(weights.version(), weights.lease().clone(), tensors.collect())
}

fn checksum(weights: &Weights) -> String {
    weights.checksum(&weights.lease().read(std::time::Duration::ZERO).unwrap())
}
