//! What passes of libtorch's autograd take, on a GPU. (For those on the host: `room.rs`.)
//!
//! Follows `trainer/torch`, tensor by tensor: what the graph keeps of a layer for the backward pass (`layer.rs`,
//! `attention.rs`), what the head computes at a time (`head.rs`), and what checkpointing puts in its place (`train.rs`).

use super::batch::Batch;
use crate::{
    model::{Head, ModelSpec},
    rollout::Dtype,
};

/// Logits that the head holds at a time, as in `trainer/torch/head.rs`.
const MAX_LOGITS: u64 = 1 << 25;
/// Bytes of an f32.
pub(super) const F32: u64 = 4;

/// A model's passes over a micro-batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passes<'a> {
    pub(super) spec: &'a ModelSpec,
    /// The format it computes in.
    pub(super) compute: Dtype,
    pub(super) checkpointing: bool,
    pub(super) batch: Batch,
}

/// What a pass takes at its peak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) activations: u64,
    pub(super) logits: u64,
}

impl Taken {
    pub(super) fn total(self) -> u64 {
        self.activations + self.logits
    }

    /// Returns both.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        let Self { activations, logits } = self;
        Self { activations: activations + other.activations, logits: logits + other.logits }
    }
}

impl Passes<'_> {
    /// Returns what a forward pass without a gradient takes: a layer's tensors at a time, then the head's.
    pub(super) fn forward(&self) -> Taken {
        let layer = self.stream(self.batch.tokens) + self.layer_scratch(self.batch.tokens);
        let head = Taken { activations: 3 * self.stream(self.batch.rows), logits: self.logits(2) };
        [Taken { activations: layer, logits: 0 }, head]
            .into_iter()
            .max_by_key(|taken| taken.total())
            .unwrap_or_default()
    }

    /// Returns what a training pass takes. `copies` is how many times the head holds its logits going forward.
    pub(super) fn train(&self, copies: u64) -> Taken {
        let layers = self.spec.num_layers as u64;
        let tokens = self.batch.tokens;
        let kept = match self.checkpointing {
            // Each layer's input, and the output.
            true => layers * self.stream(tokens) + self.stream(self.batch.rows),
            false => (layers - 1) * self.layer(false) + self.layer(true),
        };
        let head = kept + self.norm(self.batch.rows);
        // The layer whose turn it is in the backward pass: gradients of what it computed.
        let recomputed = if self.checkpointing { self.layer(false) } else { 0 };
        let layer = kept + recomputed + self.layer_gradients();
        let at_head = Taken { activations: head, logits: self.head_peak(copies) };
        let at_layer = Taken { activations: layer, logits: 0 };
        if at_head.total() >= at_layer.total() { at_head } else { at_layer }
    }

    /// Returns what the graph keeps of a layer. The last layer goes on with the wanted rows alone after its attention.
    fn layer(&self, is_last: bool) -> u64 {
        let Batch { tokens, rows, .. } = self.batch;
        let after = if is_last { rows } else { tokens };
        self.norm(tokens)
            + self.attention(after, is_last)
            + self.norm(after)
            // Up and gate, silu(gate), and its product with up.
            + self.bytes(after, 4 * self.spec.intermediate_size)
    }

    /// Returns what a norm of so many rows keeps: its input, the normalised input and the result, the first two in f32.
    /// (An input of another format is turned into f32 first, and not kept itself.)
    fn norm(&self, rows: u64) -> u64 {
        let hidden = self.spec.hidden_size;
        2 * rows * hidden as u64 * F32 + self.bytes(rows, hidden)
    }

    /// Returns what attention keeps: rotated q and k, v, and the mixed values, which the output projection reads.
    fn attention(&self, after: u64, is_last: bool) -> u64 {
        let (q, kv) = (self.spec.q_size(), self.spec.kv_size());
        let grid = self.batch.grid;
        let grouped = self.spec.num_heads != self.spec.num_kv_heads;
        // Groups are spread out to a key and a value for each query head. Without groups v is a view, which keeps
        // q, k and v alive as the projection made them.
        let inputs = if grouped { 3 * q } else { q + kv + (q + 2 * kv) };
        let normed = match self.spec.qk_norm {
            // The norms keep their input, which is a view of all three, and what they made of it.
            true if grouped => (q + 2 * kv) + (q + kv),
            true => q + kv,
            false => 0,
        };
        let moved = self.batch.is_padded() || is_last;
        let mixed = self.bytes(grid, q) + if moved { self.bytes(after, q) } else { 0 };
        let per_head = grid * self.spec.num_heads as u64 * F32;
        self.bytes(grid, inputs + normed) + mixed + per_head
    }

    /// Returns what a layer holds at its widest when nothing is kept: up and gate, then silu(gate) and the product.
    fn layer_scratch(&self, tokens: u64) -> u64 {
        let (q, kv) = (self.spec.q_size(), self.spec.kv_size());
        let mlp = 2 * self.stream(tokens) + self.bytes(tokens, 4 * self.spec.intermediate_size);
        let attention = self.bytes(self.batch.grid, 2 * (q + 2 * kv) + 3 * q);
        mlp.max(attention)
    }

    /// Returns what the backward pass of a layer holds beyond what was kept: the gradients of up and gate, twice, for
    /// the two halves are put together.
    fn layer_gradients(&self) -> u64 {
        self.bytes(self.batch.tokens, 4 * self.spec.intermediate_size)
            + 2 * self.stream(self.batch.tokens)
    }

    /// Returns what the head holds at its widest: `copies` times the logits going forward, three times going back
    /// (log-probs, and the gradients of log-probs and logits), or the gradient of its matrix.
    fn head_peak(&self, copies: u64) -> u64 {
        match self.spec.head {
            Head::Score => 0,
            Head::LanguageModel => {
                let matrix = (self.spec.vocab_size * self.spec.hidden_size) as u64;
                let with_matrix = self.logits(1) + matrix * self.compute.size() as u64;
                self.logits(copies.max(3)).max(with_matrix)
            }
        }
    }

    /// Returns the bytes of so many copies of one chunk of logits, in f32.
    fn logits(&self, copies: u64) -> u64 {
        let vocab = self.spec.vocab_size as u64;
        match self.spec.head {
            Head::Score => 0,
            Head::LanguageModel => {
                let rows = self.batch.rows.min((MAX_LOGITS / vocab.max(1)).max(1));
                copies * rows * vocab * F32
            }
        }
    }

    /// Returns the bytes of the residual stream at so many rows.
    fn stream(&self, rows: u64) -> u64 {
        self.bytes(rows, self.spec.hidden_size)
    }

    pub(super) fn bytes(&self, rows: u64, width: usize) -> u64 {
        rows * width as u64 * self.compute.size() as u64
    }
}
