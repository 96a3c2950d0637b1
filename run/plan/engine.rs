//! What the embedded engine takes beside the policy's weights.

use crate::{engine::EngineConfig, model::ModelSpec, rollout::Dtype};

/// Bytes of an f32: the format of the engine's activations and logits.
const F32: u64 = 4;

/// An engine over a model of this shape.
pub(super) struct PlannedEngine<'a> {
    pub(super) config: &'a EngineConfig,
    pub(super) spec: &'a ModelSpec,
    /// The format of its weights and of its KV cache.
    pub(super) dtype: Dtype,
    pub(super) threads: usize,
    /// Most sequences that are there to be generated at once.
    pub(super) sequences: usize,
}

impl PlannedEngine<'_> {
    /// Returns the bytes of the KV cache, all of which are touched when the engine starts.
    pub(super) fn kv_cache(&self) -> u64 {
        let blocks = self.config.kv_blocks(self.spec, self.dtype) as u64;
        let position = 2 * (self.spec.num_layers * self.spec.kv_size() * self.dtype.size()) as u64;
        blocks.saturating_mul(self.config.block_size as u64).saturating_mul(position)
    }

    /// Returns the bytes of the buffers of one step: activations of its tokens (in f32 what products give, in the
    /// engine's format what goes into them), logits of its sequences, and each thread's view of one row of logits.
    pub(super) fn buffers(&self) -> u64 {
        let spec = self.spec;
        let (hidden, q, ffn) = (spec.hidden_size, spec.q_size(), spec.intermediate_size);
        let given = (hidden + q + 2 * spec.kv_size() + 2 * ffn) as u64 * F32;
        let taken = ((hidden + q + ffn) * self.dtype.size()) as u64;
        let running = self.sequences.min(self.config.max_batch);
        let logits = ((running + 3 * self.threads) * spec.vocab_size) as u64 * F32;
        self.config.max_batch_tokens as u64 * (given + taken) + logits
    }

    /// Returns the bytes of one copy of the weights in the engine's format.
    pub(super) fn weights(&self) -> u64 {
        (self.spec.parameters() * self.dtype.size()) as u64
    }
}
