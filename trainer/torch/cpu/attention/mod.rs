//! Causal attention of one sequence, for the query heads that share a KV head; forward and back.
//!
//! ```text
//! S = scale Q K^T      P = softmax(S)      O = P V
//! dV = P^T dO      dP = dO V^T      dS = P (dP - sum of dO O over dimensions)      dQ = scale dS K      dK = scale dS^T Q
//! ```
//!
//! The derivatives are those of Dao et al. (2022), appendix B.4: of a soft-max only the logarithm of its denominator is
//! kept, and the way back computes P again. No score is ever held for more than a block of queries.

mod back;
mod pack;
mod tile;

use std::{ops::Range, sync::MutexGuard};

use crate::simd::{Element, Op, Set, Simd, chunks, chunks_mut, exp};

pub(super) use back::AttendBack;
use pack::Head;
use tile::{ROWS, lanes, product};

use super::workspace::room;

/// Heads, their size, and how far they look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// How many positions a token sees, itself included.
    pub(super) window: usize,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first token of its sequence.
    pub(super) start: usize,
    /// Tokens of its sequence.
    pub(super) length: usize,
    pub(super) position: usize,
}

impl Shape {
    /// Query heads that share a KV head.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Numbers of all query heads of a token.
    pub(super) fn q(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Numbers of q, k and v of a token.
    pub(super) fn qkv(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// Where a query head of a token begins in what attention writes.
    #[inline(always)]
    pub(super) fn output_of(&self, place: &Place, head: usize) -> usize {
        let (group, d) = (self.group(), self.head_dim);
        let row = place.start * self.kv_heads + head / group * place.length + place.position;
        row * group * d + head % group * d
    }

    /// Where a head of q, k or v of a token begins in what attention's way back writes.
    #[inline(always)]
    pub(super) fn gradient_of(&self, place: &Place, index: usize) -> usize {
        let (group, d) = (self.group(), self.head_dim);
        let (kv_head, slot) = match index.checked_sub(self.heads) {
            None => (index / group, index % group),
            Some(k) if k < self.kv_heads => (k, group),
            Some(v) => (v - self.kv_heads, group + 1),
        };
        let row = place.start * self.kv_heads + kv_head * place.length + place.position;
        (row * (group + 2) + slot) * d
    }

    /// The keys that some query of a block sees, in whole panels.
    fn seen(&self, start: usize, lanes: usize, tokens: usize) -> Range<usize> {
        let first = (start + 1).saturating_sub(self.window) / ROWS * ROWS;
        first..tokens.min(start + lanes).next_multiple_of(ROWS)
    }

    /// Whether a query sees a key.
    #[inline(always)]
    fn sees(&self, query: usize, key: usize) -> bool {
        key <= query && query - key < self.window
    }
}

/// Room for one thread.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    keys: Vec<f32>,
    values: Vec<f32>,
    queries: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
    back: back::Scratch,
}

/// A sequence's q, k and v, as one group of heads sees them.
#[derive(Clone, Copy)]
pub(super) struct Group<'a, E> {
    pub(super) shape: Shape,
    /// `[tokens, q + k + v]`
    pub(super) qkv: &'a [E],
    pub(super) kv_head: usize,
}

impl<'a, E: Element> Group<'a, E> {
    fn tokens(&self) -> usize {
        self.qkv.len() / self.shape.qkv()
    }

    fn head(&self, index: usize) -> Head<'a, E> {
        Head {
            rows: &self.qkv[index * self.shape.head_dim..],
            stride: self.shape.qkv(),
            dims: self.shape.head_dim,
            tokens: self.tokens(),
        }
    }

    /// A query head of the group, the first being 0.
    fn query(&self, slot: usize) -> Head<'a, E> {
        self.head(self.kv_head * self.shape.group() + slot)
    }

    /// The same of a matrix `[tokens, q]`.
    fn output(&self, of: &'a [E], slot: usize) -> Head<'a, E> {
        let shape = self.shape;
        let first = (self.kv_head * shape.group() + slot) * shape.head_dim;
        Head { rows: &of[first..], stride: shape.q(), dims: shape.head_dim, tokens: self.tokens() }
    }

    fn key(&self) -> Head<'a, E> {
        self.head(self.shape.heads + self.kv_head)
    }

    fn value(&self) -> Head<'a, E> {
        self.head(self.shape.heads + self.shape.kv_heads + self.kv_head)
    }

    /// Scores of a block of queries, `[seen, lanes]`; minus infinity where a query does not see a key.
    #[inline(always)]
    fn scores<S: Simd>(
        &self,
        simd: S,
        (keys, queries): (&[f32], &[f32]),
        start: usize,
        seen: &Range<usize>,
        scores: &mut [f32],
    ) {
        let (lanes, panel) = (lanes::<S>(), ROWS * self.shape.head_dim);
        let keys = keys[seen.start / ROWS * panel..].chunks_exact(panel);
        for (keys, scores) in keys.zip(scores.chunks_exact_mut(ROWS * lanes)) {
            product(simd, keys, queries, scores);
        }
        for (key, scores) in seen.clone().zip(scores.chunks_exact_mut(lanes)) {
            // All lanes see most keys.
            if self.shape.sees(start, key) && self.shape.sees(start + lanes - 1, key) {
                continue;
            }
            for (lane, score) in scores.iter_mut().enumerate() {
                if !self.shape.sees(start + lane, key) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// One task of the forward pass.
pub(super) struct Attend<'a, 's, E> {
    pub(super) group: Group<'a, E>,
    /// `[tokens, group x head_dim]`
    pub(super) out: &'a mut [E],
    /// The logarithm of each soft-max's denominator, `[tokens, group]`.
    pub(super) denominators: &'a mut [f32],
    pub(super) scratch: MutexGuard<'s, Scratch>,
}

impl<E: Element> Op for Attend<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(mut self, set: K) {
        let simd = set.simd();
        let Self { group, out, denominators, .. } = self;
        let Scratch { keys, values, queries, scores, out: lanes_out, .. } = &mut *self.scratch;
        let (shape, tokens, lanes) = (group.shape, group.tokens(), lanes::<K::Simd>());
        let (slots, d, panel_tokens) =
            (shape.group(), shape.head_dim, tokens.next_multiple_of(ROWS));
        let (keys, values) = (group.key().token_panels(keys), group.value().dim_panels(values));
        let lanes_out = room(lanes_out, d.next_multiple_of(ROWS) * lanes);
        for slot in 0..slots {
            for start in (0..tokens).step_by(lanes) {
                let queries = group.query(slot).in_lanes(start, lanes, shape.scale(), queries);
                let seen = shape.seen(start, lanes, tokens);
                let scores = room(scores, seen.len() * lanes);
                group.scores(simd, (keys, queries), start, &seen, scores);
                let (largest, sums) = soft_max(simd, scores);
                let panels = values.chunks_exact(panel_tokens * ROWS);
                for (panel, out) in panels.zip(lanes_out.chunks_exact_mut(ROWS * lanes)) {
                    product(simd, &panel[seen.start * ROWS..seen.end * ROWS], scores, out);
                }
                for (lane, token) in (start..tokens).take(lanes).enumerate() {
                    denominators[token * slots + slot] = largest[lane] + sums[lane].ln();
                    let inverse = 1.0 / sums[lane];
                    let out = &mut out[(token * slots + slot) * d..][..d];
                    for (out, row) in out.iter_mut().zip(lanes_out.chunks_exact(lanes)) {
                        *out = E::of(row[lane] * inverse);
                    }
                }
            }
        }
    }
}

/// Lanes of a block, at most.
const MOST_LANES: usize = 32;

/// Turns scores `[keys, lanes]` into `e^(score - largest)`; returns each lane's largest score, and the sum.
#[inline(always)]
fn soft_max<S: Simd>(simd: S, scores: &mut [f32]) -> ([f32; MOST_LANES], [f32; MOST_LANES]) {
    let registers = lanes::<S>() / S::LANES;
    let mut largest = [simd.splat(f32::NEG_INFINITY); 2];
    for row in chunks::<f32, S::Chunk>(scores).chunks_exact(registers) {
        for (largest, chunk) in largest.iter_mut().zip(row) {
            *largest = simd.max(*largest, simd.load(chunk));
        }
    }
    let mut sums = [simd.splat(0.0); 2];
    for row in chunks_mut::<f32, S::Chunk>(scores).chunks_exact_mut(registers) {
        for ((sum, largest), chunk) in sums.iter_mut().zip(largest).zip(row) {
            let shift = simd.mul(largest, simd.splat(-1.0));
            let weight = exp(simd, simd.add(simd.load(chunk), shift));
            *sum = simd.add(*sum, weight);
            simd.store(weight, chunk);
        }
    }
    (spread(simd, largest), spread(simd, sums))
}

#[inline(always)]
fn spread<S: Simd>(simd: S, registers: [S::Vector; 2]) -> [f32; MOST_LANES] {
    let mut numbers = [0.0; MOST_LANES];
    for (chunk, register) in chunks_mut::<f32, S::Chunk>(&mut numbers).iter_mut().zip(registers) {
        simd.store(register, chunk);
    }
    numbers
}
