//! Attention of one token over the paged KV cache: scores, softmax, weighted sum, each in the order of positions.
//!
//! The order does not depend on how positions fall into blocks, nor on who computes the other tokens.

use crate::{engine::native::BlockId, ffi::team::Disjoint};

use super::{
    Op, Values,
    gemm::{Columns, Gemm, multiply},
    pointwise::{round_to_bf16, softmax},
    simd::{Element, Set, Simd, chunks, chunks_mut, padded, unpad},
};

/// Sizes that are the same for all tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    /// Query heads that share a KV head.
    pub(crate) group: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) block_size: usize,
    /// How many positions a token sees, itself included.
    pub(crate) window: usize,
    /// Whether to round the result to bf16.
    pub(crate) round: bool,
}

/// One layer's KV cache, `[block, kv_head, position in block, head_dim]` each.
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a> {
    pub(crate) keys: Values<'a>,
    pub(crate) values: Values<'a>,
}

/// One token and one KV head: the queries of the heads that share it.
pub(crate) struct Attend<'a> {
    pub(crate) shape: AttentionShape,
    pub(crate) cached: Cached<'a>,
    pub(crate) blocks: &'a [BlockId],
    pub(crate) position: usize,
    pub(crate) kv_head: usize,
    /// `[group, head_dim]`
    pub(crate) queries: &'a [f32],
    /// Where the scores go; any length.
    pub(crate) scores: &'a mut Vec<f32>,
    /// `[group, head_dim]`
    pub(crate) out: &'a mut [f32],
}

impl Op for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(mut self, set: K) {
        match (self.cached.keys, self.cached.values) {
            (Values::F32(keys), Values::F32(values)) => self.attend(set, keys, values),
            (Values::Bf16(keys), Values::Bf16(values)) => self.attend(set, keys, values),
            _ => unreachable!("keys and values are in one format"),
        }
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn attend<K: Set, E: Element>(&mut self, set: K, keys: &[E], values: &[E]) {
        let head_dim = self.shape.head_dim;
        let first = (self.position + 1).saturating_sub(self.shape.window);
        let count = self.position + 1 - first;
        let mut scores = std::mem::take(self.scores);
        scores.resize(self.shape.group * count, 0.0);
        self.score(set, keys, first, &mut scores);
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (head, weights) in scores.chunks_exact_mut(count).enumerate() {
            let norm = softmax(set.simd(), weights, scale);
            self.weigh(set.simd(), values, first, (head, weights), norm);
        }
        if self.shape.round {
            round_to_bf16(self.out);
        }
        *self.scores = scores;
    }

    /// Fills `[group, count]` scores: `q · k` for each position from `first` to the token's own.
    #[inline(always)]
    fn score<K: Set, E: Element>(&self, set: K, keys: &[E], first: usize, scores: &mut [f32]) {
        let (depth, stride) = (self.shape.head_dim, scores.len() / self.shape.group);
        let matrix = &Disjoint::new(scores);
        for run in self.runs(first) {
            let gemm = Gemm {
                x: self.queries,
                w: &keys[run.start * depth..][..run.count * depth],
                depth,
                bias: None,
                add: false,
                out: Columns { matrix, stride, first: run.position - first },
            };
            multiply(E::product(set), &gemm);
        }
    }

    /// Adds up one head's values, some dimensions at a time.
    #[inline(always)]
    fn weigh<S: Simd, E: Element>(
        &mut self,
        simd: S,
        values: &[E],
        first: usize,
        (head, weights): (usize, &[f32]),
        norm: f32,
    ) {
        let head_dim = self.shape.head_dim;
        let whole = head_dim / S::LANES;
        let mut done = 0;
        let totals = std::mem::take(&mut self.out);
        let out = &mut totals[head * head_dim..][..head_dim];
        while whole - done >= 4 {
            self.columns::<S, E, 4>(simd, values, (first, weights, norm), done, out);
            done += 4;
        }
        while done < whole {
            self.columns::<S, E, 1>(simd, values, (first, weights, norm), done, out);
            done += 1;
        }
        if head_dim > whole * S::LANES {
            self.last_columns(simd, values, (first, weights, norm), out);
        }
        self.out = totals;
    }

    #[inline(always)]
    fn columns<S: Simd, E: Element, const C: usize>(
        &self,
        simd: S,
        values: &[E],
        (first, weights, norm): (usize, &[f32], f32),
        column: usize,
        out: &mut [f32],
    ) {
        let head_dim = self.shape.head_dim;
        let mut sums = [simd.splat(0.0); C];
        for run in self.runs(first) {
            let weights = &weights[run.position - first..][..run.count];
            let rows =
                values[run.start * head_dim..][..run.count * head_dim].chunks_exact(head_dim);
            for (row, &weight) in rows.zip(weights) {
                let row = &chunks::<E, E::Chunk<S>>(row)[column..][..C];
                let weight = simd.splat(weight);
                for c in 0..C {
                    sums[c] = simd.mul_add(weight, E::load(simd, &row[c]), sums[c]);
                }
            }
        }
        let out = &mut chunks_mut::<f32, S::Chunk>(out)[column..][..C];
        for c in 0..C {
            simd.store(simd.mul(sums[c], simd.splat(norm)), &mut out[c]);
        }
    }

    /// As `columns`, for the dimensions after the last whole register.
    #[inline(always)]
    fn last_columns<S: Simd, E: Element>(
        &self,
        simd: S,
        values: &[E],
        (first, weights, norm): (usize, &[f32], f32),
        out: &mut [f32],
    ) {
        let head_dim = self.shape.head_dim;
        let mut sum = simd.splat(0.0);
        for run in self.runs(first) {
            let weights = &weights[run.position - first..][..run.count];
            let rows =
                values[run.start * head_dim..][..run.count * head_dim].chunks_exact(head_dim);
            for (row, &weight) in rows.zip(weights) {
                if let Some(rest) = padded::<E, E::Chunk<S>>(row) {
                    sum = simd.mul_add(simd.splat(weight), E::load(simd, &rest), sum);
                }
            }
        }
        if let Some(mut rest) = padded::<f32, S::Chunk>(out) {
            simd.store(simd.mul(sum, simd.splat(norm)), &mut rest);
            unpad(&rest, out);
        }
    }

    /// Lists the runs of positions that lie one after the other in memory, from `first` to the token's own.
    #[inline(always)]
    fn runs(&self, first: usize) -> impl Iterator<Item = Run> + '_ {
        let AttentionShape { kv_heads, block_size, .. } = self.shape;
        let mut position = first;
        std::iter::from_fn(move || {
            let left = (self.position + 1).checked_sub(position).filter(|&left| left > 0)?;
            let within = position % block_size;
            let block = self.blocks[position / block_size].0 as usize;
            let count = left.min(block_size - within);
            let start = (block * kv_heads + self.kv_head) * block_size + within;
            let run = Run { start, position, count };
            position += count;
            Some(run)
        })
    }
}

/// Positions that lie one after the other in memory.
struct Run {
    /// Index of the first, in units of `head_dim` numbers.
    start: usize,
    /// The first position.
    position: usize,
    count: usize,
}
