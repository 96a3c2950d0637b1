//! The two products that attention is made of, a tile at a time, in f32.
//!
//! A block of queries lies in lanes: scores are `[keys, lanes]`, so that a soft-max runs down the lanes without a sum
//! across a register. What multiplies a register is one number for all its lanes, from a panel that holds those of
//! [`ROWS`] rows side by side.

use crate::simd::{Simd, chunks, chunks_mut};

/// Rows of a tile: with two registers of lanes each, sixteen sums, enough to hide how long one takes.
pub(super) const ROWS: usize = 8;

/// Registers that the lanes of a block take.
const fn registers<S: Simd>() -> usize {
    if S::MANY_REGISTERS { 2 } else { 1 }
}

/// Queries in a block.
pub(super) const fn lanes<S: Simd>() -> usize {
    registers::<S>() * S::LANES
}

/// `out[r, l] = sum over k of panel[k, r] by[k, l]`: `panel` is `[depth, ROWS]`, `by` is `[depth, lanes]`.
#[inline(always)]
pub(super) fn product<S: Simd>(simd: S, panel: &[f32], by: &[f32], out: &mut [f32]) {
    match S::MANY_REGISTERS {
        true => product_of::<S, 2>(simd, panel, by, out),
        false => product_of::<S, 1>(simd, panel, by, out),
    }
}

#[inline(always)]
fn product_of<S: Simd, const N: usize>(simd: S, panel: &[f32], by: &[f32], out: &mut [f32]) {
    let mut sums = [[simd.splat(0.0); N]; ROWS];
    let (by, _) = chunks::<f32, S::Chunk>(by).as_chunks::<N>();
    for (column, by) in panel.as_chunks::<ROWS>().0.iter().zip(by) {
        let by = load(simd, by);
        add_rows(simd, column, by, &mut sums);
    }
    store(simd, &sums, out);
}

/// `sums[r, l] += sum over k of rows[r, k] by[k, l]`: `rows` is `[ROWS, lanes]`, `by` is `[lanes, lanes]`.
#[inline(always)]
pub(super) fn add_product<S: Simd>(simd: S, rows: &[f32], by: &[f32], sums: &mut [f32]) {
    match S::MANY_REGISTERS {
        true => add_product_of::<S, 2>(simd, rows, by, sums),
        false => add_product_of::<S, 1>(simd, rows, by, sums),
    }
}

#[inline(always)]
fn add_product_of<S: Simd, const N: usize>(simd: S, rows: &[f32], by: &[f32], out: &mut [f32]) {
    let width = N * S::LANES;
    let mut sums = [[simd.splat(0.0); N]; ROWS];
    let (before, _) = chunks::<f32, S::Chunk>(out).as_chunks::<N>();
    for (sums, before) in sums.iter_mut().zip(before) {
        *sums = load(simd, before);
    }
    let rows = &rows[..ROWS * width];
    let (by, _) = chunks::<f32, S::Chunk>(by).as_chunks::<N>();
    for (k, by) in by.iter().take(width).enumerate() {
        let mut column = [0.0; ROWS];
        for (r, x) in column.iter_mut().enumerate() {
            *x = rows[r * width + k];
        }
        add_rows(simd, &column, load(simd, by), &mut sums);
    }
    store(simd, &sums, out);
}

#[inline(always)]
fn load<S: Simd, const N: usize>(simd: S, from: &[S::Chunk; N]) -> [S::Vector; N] {
    let mut registers = [simd.splat(0.0); N];
    for (register, chunk) in registers.iter_mut().zip(from) {
        *register = simd.load(chunk);
    }
    registers
}

#[inline(always)]
fn add_rows<S: Simd, const N: usize>(
    simd: S,
    column: &[f32; ROWS],
    by: [S::Vector; N],
    sums: &mut [[S::Vector; N]; ROWS],
) {
    for (sums, &x) in sums.iter_mut().zip(column) {
        let x = simd.splat(x);
        for (sum, by) in sums.iter_mut().zip(by) {
            *sum = simd.mul_add(x, by, *sum);
        }
    }
}

#[inline(always)]
fn store<S: Simd, const N: usize>(simd: S, sums: &[[S::Vector; N]; ROWS], out: &mut [f32]) {
    let (out, _) = chunks_mut::<f32, S::Chunk>(out).as_chunks_mut::<N>();
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            simd.store(*sum, out);
        }
    }
}
