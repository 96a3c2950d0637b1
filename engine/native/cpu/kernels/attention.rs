//! Attention of one token over the paged KV cache: scores, softmax, weighted sum, each in the order of positions.
//!
//! The order does not depend on how positions fall into blocks, nor on who computes the other tokens.

use crate::{
    engine::native::BlockId,
    ffi::team::Disjoint,
    simd::{Element, Op, Set, Simd, chunks, chunks_mut, narrow, padded, unpad},
};

use super::{
    gemm::{Columns, Gemm, LINE, multiply},
    pointwise::softmax,
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
    /// What each head's weights are to be multiplied by.
    norms: Vec<f32>,
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
        let Scratch { mut queries, mut scores, mut norms } = std::mem::take(self.scratch);
        queries.resize(self.queries.len(), E::zeroed());
        narrow(self.queries, &mut queries);
        scores.resize(self.shape.group * count, 0.0);
        self.score(set, &queries, first, &mut scores);
        let scale = 1.0 / (head_dim as f32).sqrt();
        norms.clear();
        for scores in scores.chunks_exact_mut(count) {
            norms.push(softmax(set.simd(), scores, scale));
        }
        self.weigh(set.simd(), first, &scores, &norms);
        *self.scratch = Scratch { queries, scores, norms };
    }
}

impl<E: Element> Attend<'_, E> {
    /// Fills `[group, count]` scores: `q · k` for each position from `first` to the token's own.
    #[inline(always)]
    fn score<K: Set>(&self, set: K, queries: &[E], first: usize, scores: &mut [f32]) {
        let (depth, stride) = (self.shape.head_dim, scores.len() / self.shape.group);
        let matrix = &Disjoint::new(scores);
        let mut runs = self.runs(first).peekable();
        while let Some(run) = runs.next() {
            // What is needed next comes from memory while this run's keys are multiplied.
            if let Some(next) = runs.peek() {
                fetch(set.simd(), next.of(self.cached.keys, depth));
            }
            fetch(set.simd(), run.of(self.cached.values, depth));
            let gemm = Gemm {
                x: queries,
                w: run.of(self.cached.keys, depth),
                depth,
                bias: None,
                add: false,
                next: None,
                out: Columns { matrix, stride, first: run.position - first },
            };
            multiply(E::product(set), &gemm);
        }
    }

    /// Adds up the values for each head, some heads at a time, so that a value is read once for all of them.
    #[inline(always)]
    fn weigh<S: Simd>(&mut self, simd: S, first: usize, weights: &[f32], norms: &[f32]) {
        let out = std::mem::take(&mut self.out);
        let (count, head_dim) = (weights.len() / norms.len(), self.shape.head_dim);
        let mut head = 0;
        while head < norms.len() {
            let weights = &weights[head * count..];
            let (norms, out) = (&norms[head..], &mut out[head * head_dim..]);
            head += match (norms.len(), S::MANY_REGISTERS) {
                (1, _) => self.heads::<S, 1>(simd, first, weights, norms, out),
                (2, _) => self.heads::<S, 2>(simd, first, weights, norms, out),
                (3, _) | (_, false) => self.heads::<S, 3>(simd, first, weights, norms, out),
                (_, true) => self.heads::<S, 4>(simd, first, weights, norms, out),
            };
        }
        self.out = out;
    }

    /// Adds up the values for `H` heads, some dimensions at a time, and returns `H`.
    #[inline(always)]
    fn heads<S: Simd, const H: usize>(
        &self,
        simd: S,
        first: usize,
        weights: &[f32],
        norms: &[f32],
        out: &mut [E],
    ) -> usize {
        let head_dim = self.shape.head_dim;
        let whole = head_dim / S::LANES;
        let count = self.position + 1 - first;
        let weights: [&[f32]; H] = std::array::from_fn(|h| &weights[h * count..][..count]);
        // No closures where there are registers: those are compiled without the instruction set.
        let mut factors = [simd.splat(0.0); H];
        for h in 0..H {
            factors[h] = simd.splat(norms[h]);
        }
        let mut done = 0;
        while whole - done >= 4 {
            let sums = self.columns::<S, H, 4>(simd, first, weights, done);
            put::<S, E, H, 4>(simd, sums, factors, done, head_dim, out);
            done += 4;
        }
        while done < whole {
            let sums = self.columns::<S, H, 1>(simd, first, weights, done);
            put::<S, E, H, 1>(simd, sums, factors, done, head_dim, out);
            done += 1;
        }
        if head_dim > whole * S::LANES {
            let sums = self.last_columns(simd, first, weights);
            for h in 0..H {
                let out = &mut out[h * head_dim..][..head_dim];
                if let Some(mut rest) = padded::<E, E::Chunk<S>>(out) {
                    E::store(simd, simd.mul(sums[h], factors[h]), &mut rest);
                    unpad(&rest, out);
                }
            }
        }
        H
    }

    /// Returns the sums of `C` registers of dimensions.
    #[inline(always)]
    fn columns<S: Simd, const H: usize, const C: usize>(
        &self,
        simd: S,
        first: usize,
        weights: [&[f32]; H],
        column: usize,
    ) -> [[S::Vector; C]; H] {
        let head_dim = self.shape.head_dim;
        let mut sums = [[simd.splat(0.0); C]; H];
        for run in self.runs(first) {
            let weights = weights.map(|weights| &weights[run.position - first..][..run.count]);
            let rows = run.of(self.cached.values, head_dim).chunks_exact(head_dim);
            for (j, row) in rows.enumerate() {
                let row = &chunks::<E, E::Chunk<S>>(row)[column..][..C];
                let mut values = [simd.splat(0.0); C];
                for c in 0..C {
                    values[c] = E::load(simd, &row[c]);
                }
                for h in 0..H {
                    let weight = simd.splat(weights[h][j]);
                    for c in 0..C {
                        sums[h][c] = simd.mul_add(weight, values[c], sums[h][c]);
                    }
                }
            }
        }
        sums
    }

    /// As `columns`, for the dimensions after the last whole register.
    #[inline(always)]
    fn last_columns<S: Simd, const H: usize>(
        &self,
        simd: S,
        first: usize,
        weights: [&[f32]; H],
    ) -> [S::Vector; H] {
        let head_dim = self.shape.head_dim;
        let mut sums = [simd.splat(0.0); H];
        for run in self.runs(first) {
            let rows = run.of(self.cached.values, head_dim).chunks_exact(head_dim);
            for (j, row) in rows.enumerate() {
                if let Some(rest) = padded::<E, E::Chunk<S>>(row) {
                    let row = E::load(simd, &rest);
                    for h in 0..H {
                        let weight = simd.splat(weights[h][run.position - first + j]);
                        sums[h] = simd.mul_add(weight, row, sums[h]);
                    }
                }
            }
        }
        sums
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

impl Run {
    /// Returns the run's keys or values.
    #[inline(always)]
    fn of<'a, E>(&self, numbers: &'a [E], head_dim: usize) -> &'a [E] {
        &numbers[self.start * head_dim..][..self.count * head_dim]
    }
}

/// Asks for numbers to be brought near.
#[inline(always)]
fn fetch<S: Simd, E>(simd: S, numbers: &[E]) {
    for first in numbers.iter().step_by(LINE / size_of::<E>()) {
        simd.prefetch(std::ptr::from_ref(first).cast());
    }
}

/// Writes `H` heads' sums, each multiplied by its factor, to `C` registers of dimensions.
#[inline(always)]
fn put<S: Simd, E: Element, const H: usize, const C: usize>(
    simd: S,
    sums: [[S::Vector; C]; H],
    factors: [S::Vector; H],
    column: usize,
    head_dim: usize,
    out: &mut [E],
) {
    for h in 0..H {
        let out = &mut out[h * head_dim..][..head_dim];
        let out = &mut chunks_mut::<E, E::Chunk<S>>(out)[column..][..C];
        for c in 0..C {
            E::store(simd, simd.mul(sums[h][c], factors[h]), &mut out[c]);
        }
    }
}
