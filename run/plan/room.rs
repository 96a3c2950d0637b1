//! What passes of our own take, on the host: buffers that grow to what the largest pass needs, and stay.
//!
//! Follows `trainer/torch/cpu/workspace.rs`, buffer by buffer. Left out, for they are small beside the others, are the
//! parts of sums (`partial`), what each thread has of its own for attention (some eight times a sequence's q of one head),
//! and what there is of each token that is no activation: its place, its log-prob.

use super::{
    batch::Batch,
    pass::{F32, Passes, Taken},
};
use crate::{model::Head, rollout::Dtype};

/// Bytes of logits that the head holds at a time, as in `trainer/torch/head.rs`.
const MAX_LOGITS: u64 = 3 << 27;

/// Bytes of each buffer that passes share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    buffers: Vec<u64>,
    logits: u64,
}

impl Room {
    /// Returns what suffices for either.
    #[must_use]
    pub(super) fn or(mut self, other: Self) -> Self {
        let count = self.buffers.len().max(other.buffers.len());
        self.buffers.resize(count, 0);
        for (held, wanted) in self.buffers.iter_mut().zip(other.buffers) {
            *held = wanted.max(*held);
        }
        Self { logits: self.logits.max(other.logits), ..self }
    }

    /// Returns what suffices for all.
    pub(super) fn of_all(rooms: impl Iterator<Item = Self>) -> Self {
        rooms.fold(Self::default(), Self::or)
    }

    pub(super) fn taken(&self) -> Taken {
        Taken { activations: self.buffers.iter().sum(), logits: self.logits }
    }
}

impl Passes<'_> {
    /// Returns the room that scoring needs.
    pub(super) fn scoring_room(&self) -> Room {
        self.room(false)
    }

    /// Returns the room that training needs.
    pub(super) fn training_room(&self) -> Room {
        self.room(true)
    }

    fn room(&self, trains: bool) -> Room {
        let spec = self.spec;
        let Batch { tokens, rows, .. } = self.batch;
        let (hidden, ffn, q) = (spec.hidden_size, spec.intermediate_size, spec.q_size());
        let (qkv, layers) = (q + 2 * spec.kv_size(), spec.num_layers);
        // All layers but the last go on with every token after their attention.
        let most = if layers > 1 { tokens } else { rows };
        let back = |bytes: u64| if trains { bytes } else { 0 };
        let wide = |rows: u64, width: usize| rows * width as u64 * F32;

        let mut buffers = vec![
            self.bytes(tokens, hidden),                             // normed
            self.bytes(if trains { tokens } else { most }, hidden), // product
            self.bytes(most, ffn),                                  // gated
            self.bytes(tokens, q),                                  // heads
            self.bytes(rows, q),                                    // picked
            wide(rows, hidden),                                     // picked_stream
            self.bytes(rows, hidden),                               // last
            back(self.bytes(most, hidden)),                         // d_narrow
            back(self.bytes(most, 3 * ffn)),                        // d_gated, d_up_gate
            back(self.bytes(most, q)),                              // d_mixed
            back(self.bytes(tokens, q)),                            // d_scattered
            back(wide(tokens, 2 * hidden)),                         // d_scattered_stream, d_stream
            back(wide(tokens, qkv)),                                // d_heads
            back(self.bytes(tokens, qkv)),                          // d_qkv
            back(self.bytes(rows, hidden)),                         // d_last
            back(self.weight()),
        ];
        // The stream before each layer and after the last, and what is kept of each layer.
        let (streams, end) = if trains { (layers + 1, rows) } else { (2, most) };
        let traces = if trains && !self.checkpointing { layers } else { 1 };
        for index in 0..streams {
            buffers.push(wide(if index + 1 == streams { end } else { tokens }, hidden));
            let after = if traces > 1 && index + 1 == traces { rows } else { most };
            buffers.extend(if index < traces { self.layer_trace(after) } else { [0; 4] });
        }
        Room { buffers, logits: self.held_logits() }
    }

    /// Returns what is kept of a layer that goes on with so many rows after its attention: q, k and v, once more where
    /// they are normalised, with attention's output; denominators; the stream after attention; up and gate.
    fn layer_trace(&self, rows: u64) -> [u64; 4] {
        let (spec, tokens) = (self.spec, self.batch.tokens);
        let (q, qkv) = (spec.q_size(), spec.q_size() + 2 * spec.kv_size());
        [
            self.bytes(tokens, if spec.qk_norm { 2 * qkv } else { qkv } + q),
            tokens * spec.num_heads as u64 * F32,
            rows * spec.hidden_size as u64 * F32,
            self.bytes(rows, 2 * spec.intermediate_size),
        ]
    }

    /// Returns the bytes of the largest weight's gradient, which in f32 is added up where it lies.
    fn weight(&self) -> u64 {
        let (spec, q) = (self.spec, self.spec.q_size());
        let head = if spec.head == Head::LanguageModel { spec.vocab_size } else { 0 };
        let widest = (2 * spec.intermediate_size).max(q + 2 * spec.kv_size()).max(head);
        if self.compute == Dtype::F32 { 0 } else { self.bytes(spec.hidden_size as u64, widest) }
    }

    /// Returns the bytes of the logits that are held at a time, in the format of the pass.
    fn held_logits(&self) -> u64 {
        match self.spec.head {
            Head::Score => 0,
            Head::LanguageModel => {
                let row = self.bytes(1, self.spec.vocab_size);
                self.batch.rows.min((MAX_LOGITS / row.max(1)).max(1)) * row
            }
        }
    }
}
