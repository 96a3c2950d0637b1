//! Activations times weights: `y[m, n] = Σ_k x[m, k] · w[n, k]`, both operands with k running fastest.
//!
//! Every sum is computed in the same order, whatever the number of rows, the tile it falls into and the thread:
//! lane l of a register sums the k that leave the remainder l, then the lanes are added in a fixed tree. That is what
//! makes the engine batch-invariant.

use crate::ffi::team::Disjoint;

use super::{
    Op, Values,
    simd::{Element, Product, Set, Simd, chunks, padded},
};

/// Columns that are computed for all rows before the next ones: a multiple of every tile's width.
pub(crate) const COLUMN_BLOCK: usize = 24;
/// Activations (f32) that stay in the second-level cache while the columns pass by.
const CACHED_ACTIVATIONS: usize = 48 * 1024;

/// A piece of work for one thread: some columns of the product, for all rows.
pub(crate) struct Gemm<'a, E> {
    /// `[rows, depth]`
    pub(crate) x: &'a [f32],
    /// `[columns, depth]`
    pub(crate) w: &'a [E],
    pub(crate) depth: usize,
    /// One per column.
    pub(crate) bias: Option<Values<'a>>,
    /// Whether the product is added to what is there.
    pub(crate) add: bool,
    pub(crate) out: Columns<'a>,
}

/// Where a product goes: columns of a matrix that nobody else touches meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) matrix: &'a Disjoint<'a, f32>,
    /// Length of the matrix's rows.
    pub(crate) stride: usize,
    /// The first column.
    pub(crate) first: usize,
}

impl<E: Element> Op for Gemm<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        multiply(E::product(set), &self);
    }
}

/// Computes the product block by block.
#[inline(always)]
pub(crate) fn multiply<P: Product>(product: P, gemm: &Gemm<'_, P::Weight>) {
    let (rows, columns) = (gemm.x.len() / gemm.depth, gemm.w.len() / gemm.depth);
    let row_block = (CACHED_ACTIVATIONS / gemm.depth).max(1).next_multiple_of(4);
    for first_row in (0..rows).step_by(row_block) {
        let last_row = (first_row + row_block).min(rows);
        for n in (0..columns).step_by(COLUMN_BLOCK) {
            let block = n..(n + COLUMN_BLOCK).min(columns);
            let mut m = first_row;
            while m < last_row {
                m += strip(product, gemm, m, last_row, block.clone());
            }
        }
    }
}

/// Computes as many rows as registers allow, and says how many.
#[inline(always)]
fn strip<P: Product>(
    product: P,
    gemm: &Gemm<'_, P::Weight>,
    m: usize,
    last_row: usize,
    block: std::ops::Range<usize>,
) -> usize {
    match (last_row - m, P::Simd::MANY_REGISTERS) {
        (1, _) => tiles::<P, 1, 8>(product, gemm, m, block),
        (2, false) => tiles::<P, 2, 4>(product, gemm, m, block),
        (2, true) => tiles::<P, 2, 8>(product, gemm, m, block),
        (3, false) => tiles::<P, 3, 3>(product, gemm, m, block),
        (3, true) => tiles::<P, 3, 6>(product, gemm, m, block),
        (_, false) => tiles::<P, 4, 3>(product, gemm, m, block),
        (_, true) => tiles::<P, 4, 6>(product, gemm, m, block),
    }
}

#[inline(always)]
fn tiles<P: Product, const R: usize, const C: usize>(
    product: P,
    gemm: &Gemm<'_, P::Weight>,
    m: usize,
    block: std::ops::Range<usize>,
) -> usize {
    let mut n = block.start;
    while n + C <= block.end {
        tile::<P, R, C>(product, gemm, m, n);
        n += C;
    }
    while n < block.end {
        tile::<P, R, 1>(product, gemm, m, n);
        n += 1;
    }
    R
}

/// Computes `R` rows by `C` columns and puts them where they belong.
#[inline(always)]
fn tile<P: Product, const R: usize, const C: usize>(
    product: P,
    gemm: &Gemm<'_, P::Weight>,
    m: usize,
    n: usize,
) {
    let depth = gemm.depth;
    let mut x: [&[f32]; R] = [&[]; R];
    let mut w: [&[P::Weight]; C] = [&[]; C];
    for (i, x) in x.iter_mut().enumerate() {
        *x = &gemm.x[(m + i) * depth..][..depth];
    }
    for (j, w) in w.iter_mut().enumerate() {
        *w = &gemm.w[(n + j) * depth..][..depth];
    }
    let sums = dots(product, x, w);
    for (i, sums) in sums.iter().enumerate() {
        let start = (m + i) * gemm.out.stride + gemm.out.first + n;
        // SAFETY: these columns are this thread's alone, as whoever made the `Columns` promised.
        let out = unsafe { gemm.out.matrix.part(start..start + C) };
        for (j, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
            let sum = gemm.bias.map_or(sum, |bias| sum + bias.get(n + j));
            *out = if gemm.add { *out + sum } else { sum };
        }
    }
}

/// Returns the dot products of each `x` with each `w`; all are equally long.
#[inline(always)]
pub(crate) fn dots<P: Product, const R: usize, const C: usize>(
    product: P,
    x: [&[f32]; R],
    w: [&[P::Weight]; C],
) -> [[f32; C]; R] {
    let simd = product.simd();
    let mut sums = [[simd.splat(0.0); C]; R];
    let steps = chunks::<f32, P::XChunk>(x[0]).len();
    // Cut to the same length, so that the loop needs no bounds checks.
    let mut xs: [&[P::XChunk]; R] = [&[]; R];
    let mut ws: [&[P::WChunk]; C] = [&[]; C];
    for i in 0..R {
        xs[i] = &chunks(x[i])[..steps];
    }
    for j in 0..C {
        ws[j] = &chunks(w[j])[..steps];
    }
    for k in 0..steps {
        // The side with fewer vectors stays in registers, the other passes by: beside the sums there is no room for
        // both.
        if R <= C {
            let mut held = [product.x(&xs[0][k]); R];
            for i in 1..R {
                held[i] = product.x(&xs[i][k]);
            }
            for j in 0..C {
                let passing = product.w(&ws[j][k]);
                for i in 0..R {
                    sums[i][j] = product.mul_add(held[i], passing, sums[i][j]);
                }
            }
        } else {
            let mut held = [product.w(&ws[0][k]); C];
            for j in 1..C {
                held[j] = product.w(&ws[j][k]);
            }
            for i in 0..R {
                let passing = product.x(&xs[i][k]);
                for j in 0..C {
                    sums[i][j] = product.mul_add(passing, held[j], sums[i][j]);
                }
            }
        }
    }
    for i in 0..R {
        let Some(rest) = padded(x[i]) else { break };
        let rest = product.x(&rest);
        for j in 0..C {
            // As long as `x`, so there is a rest here too.
            let Some(weights) = padded(w[j]) else { break };
            sums[i][j] = product.mul_add(rest, product.w(&weights), sums[i][j]);
        }
    }
    let mut totals = [[0.0; C]; R];
    for i in 0..R {
        for j in 0..C {
            totals[i][j] = simd.sum(sums[i][j]);
        }
    }
    totals
}
