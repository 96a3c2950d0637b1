//! Attention of one token over the paged KV cache: scores, softmax, weighted sum, each in the order of positions.
//!
//! The order does not depend on how positions fall into blocks, nor on who computes the other tokens.

use crate::{engine::native::BlockId, ffi::team::Disjoint};

use super::{
    Op,
    gemm::{Columns, Gemm, multiply},
    pointwise::softmax,
    simd::{Element, Set, Simd, chunks, chunks_mut, narrow, padded, unpad},
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
}

/// One layer's KV cache, `[block, kv_head, position in block, head_dim]` each.
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a, E> {
    pub(crate) keys: &'a [E],
    pub(crate) values: &'a [E],
}

/// Room for what one thread computes on the way.
#[derive(Debug, Default)]
pub(crate) struct Scratch<E> {
    /// `[group, head_dim]`, as they go into products.
    queries: Vec<E>,
    /// `[group, positions]`
    scores: Vec<f32>,
}

/// One token and one KV head: the queries of the heads that share it.
pub(crate) struct Attend<'a, E> {
    pub(crate) shape: AttentionShape,
    pub(crate) cached: Cached<'a, E>,
    pub(crate) blocks: &'a [BlockId],
    pub(crate) position: usize,
    pub(crate) kv_head: usize,
    /// `[group, head_dim]`
    pub(crate) queries: &'a [f32],
    pub(crate) scratch: &'a mut Scratch<E>,
    /// `[group, head_dim]`
    pub(crate) out: &'a mut [E],
}

impl<E: Element> Op for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(mut self, set: K) {
        let head_dim = self.shape.head_dim;
        let first = (self.position + 1).saturating_sub(self.shape.window);
        let count = self.position + 1 - first;
        let Scratch { mut queries, mut scores } = std::mem::take(self.scratch);
        queries.resize(self.queries.len(), E::zeroed());
        narrow(self.queries, &mut queries);
        scores.resize(self.shape.group * count, 0.0);
        self.score(set, &queries, first, &mut scores);
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (head, weights) in scores.chunks_exact_mut(count).enumerate() {
            let norm = softmax(set.simd(), weights, scale);
            self.weigh(set.simd(), first, (head, weights), norm);
        }
        *self.scratch = Scratch { queries, scores };
    }
}

impl<E: Element> Attend<'_, E> {
    /// Fills `[group, count]` scores: `q · k` for each position from `first` to the token's own.
    #[inline(always)]
    fn score<K: Set>(&self, set: K, queries: &[E], first: usize, scores: &mut [f32]) {
        let (depth, stride) = (self.shape.head_dim, scores.len() / self.shape.group);
        let matrix = &Disjoint::new(scores);
        for run in self.runs(first) {
            let gemm = Gemm {
                x: queries,
                w: &self.cached.keys[run.start * depth..][..run.count * depth],
                depth,
                bias: None,
                add: false,
                far: false,
                out: Columns { matrix, stride, first: run.position - first },
            };
            multiply(E::product(set), &gemm);
        }
    }

    /// Adds up one head's values, some dimensions at a time.
    #[inline(always)]
    fn weigh<S: Simd>(
        &mut self,
        simd: S,
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
            self.columns::<S, 4>(simd, (first, weights, norm), done, out);
            done += 4;
        }
        while done < whole {
            self.columns::<S, 1>(simd, (first, weights, norm), done, out);
            done += 1;
        }
        if head_dim > whole * S::LANES {
            self.last_columns(simd, (first, weights, norm), out);
        }
        self.out = totals;
    }

    #[inline(always)]
    fn columns<S: Simd, const C: usize>(
        &self,
        simd: S,
        (first, weights, norm): (usize, &[f32], f32),
        column: usize,
        out: &mut [E],
    ) {
        let head_dim = self.shape.head_dim;
        let mut sums = [simd.splat(0.0); C];
        for run in self.runs(first) {
            let weights = &weights[run.position - first..][..run.count];
            let rows = self.cached.values[run.start * head_dim..][..run.count * head_dim]
                .chunks_exact(head_dim);
            for (row, &weight) in rows.zip(weights) {
                let row = &chunks::<E, E::Chunk<S>>(row)[column..][..C];
                let weight = simd.splat(weight);
                for c in 0..C {
                    sums[c] = simd.mul_add(weight, E::load(simd, &row[c]), sums[c]);
                }
            }
        }
        let out = &mut chunks_mut::<E, E::Chunk<S>>(out)[column..][..C];
        for c in 0..C {
            E::store(simd, simd.mul(sums[c], simd.splat(norm)), &mut out[c]);
        }
    }

    /// As `columns`, for the dimensions after the last whole register.
    #[inline(always)]
    fn last_columns<S: Simd>(
        &self,
        simd: S,
        (first, weights, norm): (usize, &[f32], f32),
        out: &mut [E],
    ) {
        let head_dim = self.shape.head_dim;
        let mut sum = simd.splat(0.0);
        for run in self.runs(first) {
            let weights = &weights[run.position - first..][..run.count];
            let rows = self.cached.values[run.start * head_dim..][..run.count * head_dim]
                .chunks_exact(head_dim);
            for (row, &weight) in rows.zip(weights) {
                if let Some(rest) = padded::<E, E::Chunk<S>>(row) {
                    sum = simd.mul_add(simd.splat(weight), E::load(simd, &rest), sum);
                }
            }
        }
        if let Some(mut rest) = padded::<E, E::Chunk<S>>(out) {
            E::store(simd, simd.mul(sum, simd.splat(norm)), &mut rest);
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
