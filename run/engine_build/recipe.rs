//! What decides how an engine comes out.

use serde::Serialize;

use super::{SCRIPT, Toolchain};
use crate::model::ModelSpec;

/// The sizes an engine is built for. What exceeds them is refused when the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Most sequences computed together.
    pub max_batch: usize,
    /// Longest prompt.
    pub max_input: usize,
    /// Longest sequence, prompt and completion together.
    pub max_seq: usize,
    /// Most tokens in one engine step.
    pub max_num_tokens: usize,
}

/// Everything that decides how an engine comes out, but the weights: they are left out on purpose, for a refit brings
/// them. One engine serves every checkpoint of a training run, and every run over the same shape.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recipe<'a> {
    /// The model's shape, under the engine's number format.
    pub spec: &'a ModelSpec,
    /// Name and shape of every tensor of each rank's checkpoint.
    pub layout: Vec<(String, Vec<usize>)>,
    /// How many GPUs share each layer.
    pub tensor_parallel: usize,
    /// Whether up and gate are one tensor.
    pub fused_mlp: bool,
    /// The sizes.
    pub limits: Limits,
    /// What builds it.
    pub toolchain: Toolchain,
    /// The GPUs of this machine: TensorRT picks its kernels by timing them.
    pub gpus: Vec<String>,
}

impl Recipe<'_> {
    /// Returns the name that engines of this recipe go by in the cache: a BLAKE3 hash.
    pub fn key(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.to_json().as_bytes());
        hasher.update(SCRIPT.as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Returns the recipe as JSON, for people.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe is made of numbers and names")
    }
}
