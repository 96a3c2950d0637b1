//! The weights as the transformer reads them: looked up by name once, at the refit.

use crate::{
    ffi::memory::Reading,
    model::ModelSpec,
    rollout::{WeightTensor, Weights},
};

use super::kernels::Linear;
use crate::simd::Element;

/// A linear layer's tensors.
#[derive(Debug)]
pub(super) struct LinearTensors {
    weight: WeightTensor,
    bias: Option<WeightTensor>,
}

/// One transformer layer's tensors.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) input_norm: WeightTensor,
    /// q, k and v.
    pub(super) qkv: [LinearTensors; 3],
    pub(super) q_norm: Option<WeightTensor>,
    pub(super) k_norm: Option<WeightTensor>,
    pub(super) o: LinearTensors,
    pub(super) post_norm: WeightTensor,
    pub(super) gate: LinearTensors,
    pub(super) up: LinearTensors,
    pub(super) down: LinearTensors,
}

/// All tensors of a model, in the order of computation.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) embedding: WeightTensor,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: WeightTensor,
    /// The embedding again where tied.
    pub(super) head: LinearTensors,
}

impl Layers {
    /// Looks every tensor up.
    ///
    /// # Panics
    /// If the weights do not cover the spec.
    pub(super) fn new(spec: &ModelSpec, weights: &Weights) -> Self {
        let head = if spec.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        Self {
            embedding: tensor(weights, "model.embed_tokens.weight"),
            layers: (0..spec.num_layers).map(|layer| Layer::new(spec, weights, layer)).collect(),
            final_norm: tensor(weights, "model.norm.weight"),
            head: LinearTensors::new(weights, head, false),
        }
    }
}

impl Layer {
    fn new(spec: &ModelSpec, weights: &Weights, layer: usize) -> Self {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let linear = |part: &str, bias| LinearTensors::new(weights, &name(part), bias);
        let norm = |part: &str| tensor(weights, &name(part));
        Self {
            input_norm: norm("input_layernorm.weight"),
            qkv: ["q", "k", "v"]
                .map(|which| linear(&format!("self_attn.{which}_proj"), spec.qkv_bias)),
            q_norm: spec.qk_norm.then(|| norm("self_attn.q_norm.weight")),
            k_norm: spec.qk_norm.then(|| norm("self_attn.k_norm.weight")),
            o: linear("self_attn.o_proj", spec.o_bias),
            post_norm: norm("post_attention_layernorm.weight"),
            gate: linear("mlp.gate_proj", spec.mlp_bias),
            up: linear("mlp.up_proj", spec.mlp_bias),
            down: linear("mlp.down_proj", spec.mlp_bias),
        }
    }
}

impl LinearTensors {
    fn new(weights: &Weights, name: &str, bias: bool) -> Self {
        Self {
            weight: tensor(weights, &format!("{name}.weight")),
            bias: bias.then(|| tensor(weights, &format!("{name}.bias"))),
        }
    }

    /// Returns the layer to compute with.
    pub(super) fn view<'a, E: Element>(&'a self, reading: &'a Reading) -> Linear<'a, E> {
        let bias = self.bias.as_ref().map(|bias| numbers(bias, reading));
        Linear { weight: numbers(&self.weight, reading), bias }
    }
}

fn tensor(weights: &Weights, name: &str) -> WeightTensor {
    weights.get(name).expect("coverage was checked before").clone()
}

/// Returns a tensor's numbers.
///
/// # Panics
/// If they are in another format: all weights are in one, or are copied into it when they come.
pub(super) fn numbers<'a, E: Element>(tensor: &'a WeightTensor, reading: &'a Reading) -> &'a [E] {
    assert_eq!(tensor.dtype, E::DTYPE, "weights in the format they are computed with");
    bytemuck::cast_slice(tensor.memory.bytes(reading))
}
