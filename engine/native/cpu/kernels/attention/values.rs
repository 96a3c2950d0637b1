//! Sums of values, `[position, head_dim]` within a block, each in the order of positions.

use crate::{
    engine::native::BlockId,
    simd::{Element, Simd, chunks, chunks_mut, padded, unpad},
};

use super::AttentionShape;

/// The values of one KV head that a token sees.
#[derive(Clone, Copy)]
pub(super) struct Values<'a, E> {
    pub(super) shape: AttentionShape,
    pub(super) numbers: &'a [E],
    pub(super) blocks: &'a [BlockId],
    pub(super) kv_head: usize,
    /// Positions of the first block that are not seen.
    pub(super) skip: usize,
    /// How many are seen.
    pub(super) count: usize,
}

/// Positions that lie one after the other in memory.
struct Run<'a, E> {
    /// How many positions come before.
    before: usize,
    /// `[count, head_dim]`
    values: &'a [E],
    count: usize,
}

impl<'a, E: Element> Values<'a, E> {
    /// Adds up the values for each head, some heads at a time, so that a value is read once for all of them.
    /// `weights` is `[heads, positions of the blocks]`; what comes out is multiplied by a head's norm.
    #[inline(always)]
    pub(super) fn weigh<S: Simd>(&self, simd: S, weights: &[f32], norms: &[f32], out: &mut [E]) {
        let (stride, head_dim) = (weights.len() / norms.len(), self.shape.head_dim);
        let mut head = 0;
        while head < norms.len() {
            let weights = &weights[head * stride..];
            let (norms, out) = (&norms[head..], &mut out[head * head_dim..]);
            head += match (norms.len(), S::MANY_REGISTERS) {
                (1, _) => self.heads::<S, 1>(simd, weights, norms, out),
                (2, _) => self.heads::<S, 2>(simd, weights, norms, out),
                (3, _) | (_, false) => self.heads::<S, 3>(simd, weights, norms, out),
                (_, true) => self.heads::<S, 4>(simd, weights, norms, out),
            };
        }
    }

    /// Adds up the values for `H` heads, some dimensions at a time, and returns `H`.
    #[inline(always)]
    fn heads<S: Simd, const H: usize>(
        &self,
        simd: S,
        weights: &[f32],
        norms: &[f32],
        out: &mut [E],
    ) -> usize {
        let head_dim = self.shape.head_dim;
        let whole = head_dim / S::LANES;
        let stride = self.blocks.len() * self.shape.block_size;
        let weights: [&[f32]; H] =
            std::array::from_fn(|h| &weights[h * stride + self.skip..][..self.count]);
        // No closures where there are registers: those are compiled without the instruction set.
        let mut factors = [simd.splat(0.0); H];
        for h in 0..H {
            factors[h] = simd.splat(norms[h]);
        }
        let mut done = 0;
        while whole - done >= 4 {
            let sums = self.columns::<S, H, 4>(simd, weights, done);
            put::<S, E, H, 4>(simd, sums, factors, (done, head_dim), out);
            done += 4;
        }
        while done < whole {
            let sums = self.columns::<S, H, 1>(simd, weights, done);
            put::<S, E, H, 1>(simd, sums, factors, (done, head_dim), out);
            done += 1;
        }
        if head_dim > whole * S::LANES {
            let sums = self.last_columns(simd, weights);
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
        weights: [&[f32]; H],
        column: usize,
    ) -> [[S::Vector; C]; H] {
        let mut sums = [[simd.splat(0.0); C]; H];
        for run in self.runs() {
            let weights = weights.map(|weights| &weights[run.before..][..run.count]);
            for (j, row) in run.values.chunks_exact(self.shape.head_dim).enumerate() {
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
        weights: [&[f32]; H],
    ) -> [S::Vector; H] {
        let mut sums = [simd.splat(0.0); H];
        for run in self.runs() {
            for (j, row) in run.values.chunks_exact(self.shape.head_dim).enumerate() {
                if let Some(rest) = padded::<E, E::Chunk<S>>(row) {
                    let row = E::load(simd, &rest);
                    for h in 0..H {
                        let weight = simd.splat(weights[h][run.before + j]);
                        sums[h] = simd.mul_add(weight, row, sums[h]);
                    }
                }
            }
        }
        sums
    }

    /// Lists what is seen, block by block.
    #[inline(always)]
    fn runs(&self) -> impl Iterator<Item = Run<'a, E>> {
        let AttentionShape { kv_heads, block_size, head_dim, .. } = self.shape;
        let Self { numbers, blocks, kv_head, skip, count, .. } = *self;
        let mut before = 0;
        blocks.iter().enumerate().map(move |(index, block)| {
            let within = if index == 0 { skip } else { 0 };
            let start = (block.0 as usize * kv_heads + kv_head) * block_size + within;
            let count = (block_size - within).min(count - before);
            let run =
                Run { before, values: &numbers[start * head_dim..][..count * head_dim], count };
            before += count;
            run
        })
    }
}

/// Writes `H` heads' sums, each multiplied by its factor, to `C` registers of dimensions from a column on.
#[inline(always)]
fn put<S: Simd, E: Element, const H: usize, const C: usize>(
    simd: S,
    sums: [[S::Vector; C]; H],
    factors: [S::Vector; H],
    (column, head_dim): (usize, usize),
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
