//! Attention's way back.

use std::sync::MutexGuard;

use super::{
    Group, MOST_LANES,
    tile::{ROWS, add_product, lanes, product},
};
use crate::{
    simd::{Element, Op, Set, Simd, chunks, chunks_mut, exp},
    trainer::torch::cpu::workspace::{room, zeros},
};

/// Room for one thread, beside that of the forward pass.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    key_dims: Vec<f32>,
    d_out: Vec<f32>,
    rows: Vec<f32>,
    d_scores: Vec<f32>,
    /// Tiles `[keys / ROWS, dims / lanes]` of `[ROWS, lanes]`, as is `d_values`.
    d_keys: Vec<f32>,
    d_values: Vec<f32>,
}

/// One task of the backward pass.
pub(in super::super) struct AttendBack<'a, 's, E> {
    pub(in super::super) group: Group<'a, E>,
    pub(in super::super) denominators: &'a [f32],
    /// Attention's output, and the derivative with respect to it: `[tokens, q]` of the sequence.
    pub(in super::super) mixed: &'a [E],
    pub(in super::super) d_mixed: &'a [E],
    /// `[tokens, group + k + v, head_dim]`
    pub(in super::super) d_heads: &'a mut [f32],
    pub(in super::super) scratch: MutexGuard<'s, super::Scratch>,
}

impl<E: Element> Op for AttendBack<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let Self { group, denominators, mixed, d_mixed, d_heads, mut scratch } = self;
        let (simd, lanes) = (set.simd(), lanes::<K::Simd>());
        let super::Scratch { keys, values, queries, scores, out, back } = &mut *scratch;
        let (shape, tokens) = (group.shape, group.tokens());
        let (slots, d, all_keys) = (shape.group(), shape.head_dim, tokens.next_multiple_of(ROWS));
        let (keys, key_dims) =
            (group.key().token_panels(keys), group.key().dim_panels(&mut back.key_dims));
        let values = group.value().token_panels(values);
        let pieces = d.div_ceil(lanes);
        let d_keys = zeros(&mut back.d_keys, all_keys * pieces * lanes);
        let d_values = zeros(&mut back.d_values, all_keys * pieces * lanes);
        let d_query = room(out, d.next_multiple_of(ROWS) * lanes);
        for slot in 0..slots {
            let (query, mixed, d_mixed) =
                (group.query(slot), group.output(mixed, slot), group.output(d_mixed, slot));
            for start in (0..tokens).step_by(lanes) {
                let queries = query.in_lanes(start, lanes, shape.scale(), queries);
                let d_out = d_mixed.in_lanes(start, lanes, 1.0, &mut back.d_out);
                let (mut shift, mut common) = ([0.0; MOST_LANES], [0.0; MOST_LANES]);
                for (lane, token) in (start..tokens).take(lanes).enumerate() {
                    shift[lane] = -denominators[token * slots + slot];
                    common[lane] = -mixed.dot(&d_mixed, token);
                }
                let seen = shape.seen(start, lanes, tokens);
                let weights = room(scores, seen.len() * lanes);
                group.scores(simd, (keys, queries), start, &seen, weights);
                let d_scores = room(&mut back.d_scores, seen.len() * lanes);
                let panels = values[seen.start * d..].chunks_exact(ROWS * d);
                for (panel, d_scores) in panels.zip(d_scores.chunks_exact_mut(ROWS * lanes)) {
                    product(simd, panel, d_out, d_scores);
                }
                soft_max_back(simd, weights, d_scores, (&shift, &common), shape.scale());

                let first = seen.start * pieces * lanes;
                let rows = d_mixed.in_rows(start, lanes, &mut back.rows);
                add_products(simd, weights, rows, &mut d_values[first..]);
                let rows = query.in_rows(start, lanes, &mut back.rows);
                add_products(simd, d_scores, rows, &mut d_keys[first..]);
                let panels = key_dims.chunks_exact(all_keys * ROWS);
                for (panel, out) in panels.zip(d_query.chunks_exact_mut(ROWS * lanes)) {
                    product(simd, &panel[seen.start * ROWS..seen.end * ROWS], d_scores, out);
                }
                for (lane, token) in (start..tokens).take(lanes).enumerate() {
                    let out = &mut d_heads[(token * (slots + 2) + slot) * d..][..d];
                    for (out, row) in out.iter_mut().zip(d_query.chunks_exact(lanes)) {
                        *out = row[lane];
                    }
                }
            }
        }
        for (token, row) in d_heads.chunks_exact_mut((slots + 2) * d).enumerate() {
            let (d_key, d_value) = row[slots * d..].split_at_mut(d);
            for (sums, out) in [(&*d_keys, d_key), (&*d_values, d_value)] {
                for (piece, out) in out.chunks_mut(lanes).enumerate() {
                    let tile = (token / ROWS * pieces + piece) * ROWS;
                    let row = &sums[(tile + token % ROWS) * lanes..];
                    out.copy_from_slice(&row[..out.len()]);
                }
            }
        }
    }
}

/// Adds a block's share to the derivatives of keys or values: `[ROWS, lanes]` of each panel of keys, times
/// `[dims / lanes, lanes, lanes]`.
#[inline(always)]
fn add_products<S: Simd>(simd: S, weights: &[f32], by: &[f32], sums: &mut [f32]) {
    let lanes = lanes::<S>();
    let (tile, square) = (ROWS * lanes, lanes * lanes);
    let panels = sums.chunks_exact_mut(by.len() / square * tile);
    for (rows, sums) in weights.chunks_exact(tile).zip(panels) {
        for (by, sums) in by.chunks_exact(square).zip(sums.chunks_exact_mut(tile)) {
            add_product(simd, rows, by, sums);
        }
    }
}

/// Scores become weights `P`, derivatives of weights become derivatives of unscaled products `scale P (dP - common)`.
#[inline(always)]
fn soft_max_back<S: Simd>(
    simd: S,
    weights: &mut [f32],
    d_scores: &mut [f32],
    (shift, common): (&[f32], &[f32]),
    scale: f32,
) {
    let (shift, common) = (chunks::<f32, S::Chunk>(shift), chunks::<f32, S::Chunk>(common));
    let registers = lanes::<S>() / S::LANES;
    let rows = chunks_mut::<f32, S::Chunk>(weights).chunks_exact_mut(registers);
    let d_rows = chunks_mut::<f32, S::Chunk>(d_scores).chunks_exact_mut(registers);
    for (row, d_row) in rows.zip(d_rows) {
        let lanes = shift.iter().zip(common);
        for ((weight, d_score), (shift, common)) in row.iter_mut().zip(d_row).zip(lanes) {
            let p = exp(simd, simd.add(simd.load(weight), simd.load(shift)));
            simd.store(p, weight);
            let slope = simd.add(simd.load(d_score), simd.load(common));
            simd.store(simd.mul(simd.mul(p, slope), simd.splat(scale)), d_score);
        }
    }
}
