//! A pass through the layers, there and back.

use super::{
    compute::{Crew, Format},
    sequences::Sequences,
    slots::Slots,
    workspace::{Buffers, LayerTrace, room},
};
use crate::{model::ModelSpec, trainer::torch::Result};

/// A model and a batch, for one pass.
pub(super) struct Pass<'a, E> {
    pub(super) spec: &'a ModelSpec,
    pub(super) slots: &'a Slots,
    /// The flat buffer.
    pub(super) weights: &'a [E],
    pub(super) sequences: &'a Sequences<'a>,
    /// Rows of the stream that the last layer's output is wanted of.
    pub(super) wanted: &'a [usize],
}

impl<E: Format> Pass<'_, E> {
    pub(super) fn is_last(&self, layer: usize) -> bool {
        layer + 1 == self.slots.layers.len()
    }

    /// How many rows a layer's output has.
    fn rows(&self, layer: usize) -> usize {
        if self.is_last(layer) { self.wanted.len() } else { self.sequences.len() }
    }

    /// Looks the tokens up: `[tokens, hidden]`.
    pub(super) fn embed(&self, stream: &mut Vec<f32>) {
        let width = self.spec.hidden_size;
        let table = &self.weights[self.slots.embedding.clone()];
        let stream = room(stream, self.sequences.len() * width);
        for (row, &token) in stream.chunks_exact_mut(width).zip(self.sequences.tokens) {
            let embedding = &table[token as usize * width..][..width];
            for (x, weight) in row.iter_mut().zip(embedding) {
                *x = weight.wide();
            }
        }
    }

    /// The way back through [`Pass::embed`].
    pub(super) fn embed_back(&self, d_stream: &[f32], gradient: &mut [f32]) {
        let width = self.spec.hidden_size;
        let Some(table) = gradient.get_mut(self.slots.embedding.clone()) else { return };
        for (d_row, &token) in d_stream.chunks_exact(width).zip(self.sequences.tokens) {
            let sums = &mut table[token as usize * width..][..width];
            for (sum, d) in sums.iter_mut().zip(d_row) {
                *sum += d;
            }
        }
    }

    /// Computes a layer, from the stream before it to the stream after it; of the wanted rows only, if it is the last.
    pub(super) fn layer(
        &self,
        layer: usize,
        (input, output): (&[f32], &mut Vec<f32>),
        trace: &mut LayerTrace<E>,
        buffers: &mut Buffers<E>,
        crew: &mut Crew,
    ) -> Result<()> {
        let slots = &self.slots.layers[layer];
        let (tokens, rows) = (self.sequences.len(), self.rows(layer));
        let (hidden, shape) = (self.spec.hidden_size, self.sequences.shape);
        let input = &input[..tokens * hidden];

        let normed = self.norm(input, &slots.attention_norm, &mut buffers.normed, crew);
        let qkv = room(&mut trace.qkv, tokens * shape.qkv());
        self.linear(normed, &slots.qkv, qkv, crew)?;
        self.rotate(slots, qkv, &mut trace.raw, crew);
        let heads = room(&mut buffers.heads, tokens * shape.q());
        let denominators = room(&mut trace.denominators, tokens * shape.heads);
        self.attend(qkv, heads, denominators, crew);
        let mixed = room(&mut trace.mixed, tokens * shape.q());
        self.interleave(heads, mixed, crew);
        let picked = self.picked(layer, mixed, shape.q(), &mut buffers.picked, crew);
        let product = room(&mut buffers.product, rows * hidden);
        self.linear(picked, &slots.output, product, crew)?;
        let input = self.picked(layer, input, hidden, &mut buffers.picked_stream, crew);
        let middle = room(&mut trace.middle, rows * hidden);
        self.add(input, product, middle, crew);

        let normed = self.norm(middle, &slots.mlp_norm, &mut buffers.normed, crew);
        let up_gate = room(&mut trace.up_gate, rows * slots.up_gate.outputs);
        self.linear(normed, &slots.up_gate, up_gate, crew)?;
        let gated = self.gate(up_gate, &mut buffers.gated, crew);
        let product = room(&mut buffers.product, rows * hidden);
        self.linear(gated, &slots.down, product, crew)?;
        self.add(middle, product, room(output, rows * hidden), crew);
        Ok(())
    }

    /// The way back through [`Pass::layer`]: turns the derivative with respect to its output into that with respect to
    /// its input, and adds those with respect to its parameters.
    pub(super) fn layer_back(
        &self,
        layer: usize,
        (input, trace): (&[f32], &LayerTrace<E>),
        (buffers, d_stream): (&mut Buffers<E>, &mut Vec<f32>),
        gradient: &mut [f32],
        crew: &mut Crew,
    ) -> Result<()> {
        let slots = &self.slots.layers[layer];
        let (tokens, rows) = (self.sequences.len(), self.rows(layer));
        let (hidden, shape) = (self.spec.hidden_size, self.sequences.shape);
        let Buffers { weight, partial, d_narrow, .. } = buffers;
        let input = &input[..tokens * hidden];
        let middle = &trace.middle[..rows * hidden];
        let up_gate = &trace.up_gate[..rows * slots.up_gate.outputs];
        let d_rows = room(d_stream, rows * hidden);

        let d_out = self.narrow(d_rows, d_narrow, crew);
        let gated = self.gate(up_gate, &mut buffers.gated, crew);
        let d_gated = room(&mut buffers.d_gated, gated.len());
        self.linear_back(&slots.down, (gated, d_out), d_gated, (gradient, weight), crew)?;
        let d_up_gate = room(&mut buffers.d_up_gate, up_gate.len());
        self.gate_back(up_gate, d_gated, d_up_gate, crew);
        let normed = self.norm(middle, &slots.mlp_norm, &mut buffers.normed, crew);
        let d_normed = room(&mut buffers.product, rows * hidden);
        self.linear_back(&slots.up_gate, (normed, d_up_gate), d_normed, (gradient, weight), crew)?;
        self.norm_back(middle, &slots.mlp_norm, (d_normed, d_rows), (gradient, partial), crew);

        let d_out = self.narrow(d_rows, d_narrow, crew);
        let mixed = &trace.mixed[..tokens * shape.q()];
        let picked = self.picked(layer, mixed, shape.q(), &mut buffers.picked, crew);
        let d_mixed = room(&mut buffers.d_mixed, rows * shape.q());
        self.linear_back(&slots.output, (picked, d_out), d_mixed, (gradient, weight), crew)?;
        let d_mixed = match self.is_last(layer) {
            true => self.scatter(d_mixed, shape.q(), &mut buffers.d_scattered),
            false => d_mixed,
        };
        if self.is_last(layer) {
            let scattered = self.scatter(d_rows, hidden, &mut buffers.d_scattered_stream);
            room(d_stream, tokens * hidden).copy_from_slice(scattered);
        }
        let d_heads = room(&mut buffers.d_heads, tokens * shape.qkv());
        self.attend_back(trace, mixed, d_mixed, d_heads, crew);
        let d_qkv = room(&mut buffers.d_qkv, tokens * shape.qkv());
        self.rotate_back(slots, &trace.raw, (d_heads, d_qkv), (gradient, partial), crew);
        let normed = self.norm(input, &slots.attention_norm, &mut buffers.normed, crew);
        let d_normed = room(&mut buffers.product, tokens * hidden);
        self.linear_back(&slots.qkv, (normed, d_qkv), d_normed, (gradient, weight), crew)?;
        let d_stream = room(d_stream, tokens * hidden);
        self.norm_back(
            input,
            &slots.attention_norm,
            (d_normed, d_stream),
            (gradient, partial),
            crew,
        );
        Ok(())
    }
}
