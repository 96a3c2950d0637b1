//! One forward pass: tokens of many sequences through all layers, as one matrix.

use std::sync::Mutex;

use crate::{
    engine::native::{LogitsWanted, SequenceStep},
    ffi::{memory::Reading, team::Team},
    model::ModelSpec,
    rollout::WeightTensor,
    simd::{Element, Kernels, RmsNorm},
};

use super::{
    kernels::{Attention, AttentionShape, GateUp, Linear, Linears, Rotate, Scratch},
    kv::KvCache,
    layers::{Layer, Layers, LinearTensors, numbers},
    rotary::Rotary,
};

/// Numbers that one thread normalises or rotates in less time than it takes to share them out.
const SMALL: usize = 8 * 1024;

/// Buffers that live from step to step, so that a step allocates nothing once they have grown.
#[derive(Debug, Default)]
pub(super) struct Workspace<E> {
    tokens: Vec<Token>,
    /// Rows of tokens whose logits are wanted.
    wanted: Vec<usize>,
    /// The residual stream, `[tokens, hidden]`.
    hidden: Vec<f32>,
    /// What a norm made of it.
    normed: Vec<E>,
    /// `[tokens, q + k + v]`
    qkv: Vec<f32>,
    /// `[tokens, q]`
    attended: Vec<E>,
    /// `[tokens, ffn]`
    gate: Vec<f32>,
    up: Vec<f32>,
    gated: Vec<E>,
    /// One for each thread; never waited for.
    scratch: Vec<Mutex<Scratch<E>>>,
}

/// A row of the matrix.
#[derive(Clone, Copy, Debug)]
struct Token {
    id: u32,
    sequence: usize,
    position: usize,
}

/// What one pass needs.
pub(super) struct Pass<'a, E> {
    pub(super) spec: &'a ModelSpec,
    pub(super) kernels: Kernels,
    pub(super) team: &'a mut Team,
    pub(super) layers: &'a Layers,
    pub(super) reading: &'a Reading,
    pub(super) cache: &'a mut KvCache<E>,
    pub(super) rotary: &'a mut Rotary,
    pub(super) work: &'a mut Workspace<E>,
    pub(super) sequences: &'a [SequenceStep<'a>],
}

impl<E: Element> Pass<'_, E> {
    /// Computes the wanted logits.
    pub(super) fn run(mut self, logits: &mut Vec<f32>) {
        self.lay_out();
        self.embed();
        for (index, layer) in self.layers.layers.iter().enumerate() {
            self.attention(index, layer);
            self.feed_forward(layer);
        }
        self.head(logits);
    }

    fn lay_out(&mut self) {
        let Workspace { tokens, wanted, scratch, .. } = self.work;
        tokens.clear();
        wanted.clear();
        for (sequence, step) in self.sequences.iter().enumerate() {
            let first = tokens.len();
            let positions = step.start..step.start + step.tokens.len();
            self.rotary.reach(positions.end);
            let of = |(id, position): (&u32, _)| Token { id: *id, sequence, position };
            tokens.extend(step.tokens.iter().zip(positions).map(of));
            match step.logits {
                LogitsWanted::None => {}
                LogitsWanted::Last => wanted.push(tokens.len() - 1),
                LogitsWanted::All => wanted.extend(first..tokens.len()),
            }
        }
        scratch.resize_with(self.team.threads(), Default::default);
    }

    fn embed(&mut self) {
        let width = self.spec.hidden_size;
        let Workspace { tokens, hidden, .. } = self.work;
        hidden.resize(tokens.len() * width, 0.0);
        let embedding = numbers::<E>(&self.layers.embedding, self.reading);
        for (token, row) in tokens.iter().zip(hidden.chunks_exact_mut(width)) {
            let numbers = &embedding[token.id as usize * width..][..width];
            row.iter_mut().zip(numbers).for_each(|(to, from)| *to = from.wide());
        }
    }

    /// `hidden += o(attention(rotate(q), rotate(k), v))`, with `q, k, v` linear in `norm(hidden)`.
    fn attention(&mut self, index: usize, layer: &Layer) {
        self.norm(&layer.input_norm);
        let [q, k, v] = &layer.qkv;
        let qkv = [q, k, v].map(|linear| linear.view(self.reading));
        let width = self.spec.q_size() + 2 * self.spec.kv_size();
        let work = &mut *self.work;
        work.qkv.resize(work.tokens.len() * width, 0.0);
        let layers =
            Linears { x: &work.normed, depth: self.spec.hidden_size, layers: &qkv, add: false };
        self.kernels.linears(self.team, &layers, &mut work.qkv);
        self.rotate(layer);
        self.store(index);
        self.attend(index);
        let o = layer.o.view(self.reading);
        self.add_linear(o, self.spec.q_size(), |work| &work.attended);
    }

    /// `hidden += down(silu(gate) · up)`, with `gate, up` linear in `norm(hidden)`.
    fn feed_forward(&mut self, layer: &Layer) {
        self.norm(&layer.post_norm);
        let Workspace { tokens, normed, gate, up, gated, .. } = &mut *self.work;
        let size = tokens.len() * self.spec.intermediate_size;
        gate.resize(size, 0.0);
        up.resize(size, 0.0);
        gated.resize(size, E::zeroed());
        let gate_up = GateUp {
            x: normed,
            depth: self.spec.hidden_size,
            gate: layer.gate.view(self.reading),
            up: layer.up.view(self.reading),
        };
        self.kernels.gate_up(self.team, &gate_up, [gate, up], gated);
        let down = layer.down.view(self.reading);
        self.add_linear(down, self.spec.intermediate_size, |work| &work.gated);
    }

    /// Logits of the wanted rows.
    fn head(&mut self, logits: &mut Vec<f32>) {
        let width = self.spec.hidden_size;
        let Workspace { wanted, hidden, .. } = &mut *self.work;
        // Ascending, so a row never overwrites one that is still to come.
        for (to, from) in wanted.iter().enumerate() {
            hidden.copy_within(from * width..(from + 1) * width, to * width);
        }
        hidden.truncate(wanted.len() * width);
        logits.resize(wanted.len() * self.spec.vocab_size, 0.0);
        self.norm(&self.layers.final_norm);
        let layers = [LinearTensors::view(&self.layers.head, self.reading)];
        let linear = Linears { x: &self.work.normed, depth: width, layers: &layers, add: false };
        self.kernels.linears(self.team, &linear, logits);
    }

    /// `normed = norm(hidden)`
    fn norm(&mut self, weight: &WeightTensor) {
        let width = self.spec.hidden_size;
        let Workspace { hidden, normed, .. } = &mut *self.work;
        normed.resize(hidden.len(), E::zeroed());
        let weight = numbers::<E>(weight, self.reading);
        let (eps, kernels) = (self.spec.rms_norm_eps as f32, self.kernels);
        let size = piece(hidden.len(), width, self.team.threads());
        self.team.pieces(normed, size, |_, index, out| {
            let x = &hidden[index * size..][..out.len()];
            kernels.run(RmsNorm { x, weight, eps, out });
        });
    }

    fn add_linear(
        &mut self,
        linear: Linear<'_, E>,
        depth: usize,
        x: impl Fn(&Workspace<E>) -> &Vec<E>,
    ) {
        let mut hidden = std::mem::take(&mut self.work.hidden);
        let layers = Linears { x: x(self.work), depth, layers: &[linear], add: true };
        self.kernels.linears(self.team, &layers, &mut hidden);
        self.work.hidden = hidden;
    }

    /// Normalises (where the family does) and rotates q and k.
    fn rotate(&mut self, layer: &Layer) {
        let (q_size, kv_size) = (self.spec.q_size(), self.spec.kv_size());
        let Workspace { tokens, qkv, .. } = &mut *self.work;
        let width = q_size + 2 * kv_size;
        let eps = self.spec.rms_norm_eps as f32;
        let [q_norm, k_norm] = [&layer.q_norm, &layer.k_norm]
            .map(|weight| weight.as_ref().map(|weight| (numbers::<E>(weight, self.reading), eps)));
        let (kernels, rotary) = (self.kernels, &*self.rotary);
        let size = piece(qkv.len(), width, self.team.threads());
        self.team.pieces(qkv, size, |_, index, rows| {
            let tokens = &tokens[index * size / width..];
            for (token, row) in tokens.iter().zip(rows.chunks_exact_mut(width)) {
                let (cos, sin) = rotary.at(token.position);
                let (q, kv) = row.split_at_mut(q_size);
                let k = &mut kv[..kv_size];
                kernels.run(Rotate { heads: q, norm: q_norm, cos, sin });
                kernels.run(Rotate { heads: k, norm: k_norm, cos, sin });
            }
        });
    }

    /// Keeps the new keys and values, before anybody attends to them.
    fn store(&mut self, index: usize) {
        let (q_size, kv_size) = (self.spec.q_size(), self.spec.kv_size());
        let block_size = self.cache.block_size;
        let rows = self.work.qkv.chunks_exact(q_size + 2 * kv_size);
        for (token, row) in self.work.tokens.iter().zip(rows) {
            let block = self.sequences[token.sequence].blocks[token.position / block_size];
            let (key, value) = row[q_size..].split_at(kv_size);
            let at = (block, token.position % block_size);
            self.cache.store(self.kernels, index, at, [key, value]);
        }
    }

    fn attend(&mut self, index: usize) {
        let spec = self.spec;
        let shape = AttentionShape {
            group: spec.num_heads / spec.num_kv_heads,
            kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            block_size: self.cache.block_size,
            window: spec.sliding_window.unwrap_or(usize::MAX),
        };
        let Workspace { tokens, qkv, attended, scratch, .. } = &mut *self.work;
        attended.resize(tokens.len() * spec.q_size(), E::zeroed());
        let cached = self.cache.layer(index);
        let attention = Attention { shape, cached, queries: qkv, tokens: tokens.len() };
        let seen = |token: usize| {
            let Token { sequence, position, .. } = tokens[token];
            (self.sequences[sequence].blocks, position)
        };
        self.kernels.attend(self.team, attention, seen, scratch, attended);
    }
}

/// Returns how many numbers one task takes: whole rows, and not too few.
fn piece(numbers: usize, width: usize, threads: usize) -> usize {
    numbers.div_ceil(2 * threads).max(SMALL).next_multiple_of(width)
}
