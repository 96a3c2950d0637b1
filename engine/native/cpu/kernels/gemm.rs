//! Activations times weights: `y[m, n] = Σ_k x[m, k] · w[n, k]`, both operands with k running fastest.
//!
//! Every sum is computed in the same order, whatever the number of rows, the tile it falls into and the thread:
//! lane l of a register sums the k that leave the remainder l, then the lanes are added in a fixed tree. That is what
//! makes the engine batch-invariant.

use std::ops::Range;

use crate::{
    ffi::team::Disjoint,
    simd::{Element, Op, Product, Set, Simd, chunks, padded},
};

/// Columns that are computed for all rows before the next ones: a multiple of every tile's width.
pub(crate) const COLUMN_BLOCK: usize = 16;
/// Bytes of activations that stay in the second-level cache while the columns pass by.
const CACHED_ACTIVATIONS: usize = 192 * 1024;
/// Bytes that memory gives at a time.
const LINE: usize = 64;

/// A piece of work for one thread: some columns of the product, for all rows.
pub(crate) struct Gemm<'a, E> {
    /// `[rows, depth]`
    pub(crate) x: &'a [E],
    /// `[columns, depth]`
    pub(crate) w: &'a [E],
    pub(crate) depth: usize,
    /// One per column.
    pub(crate) bias: Option<&'a [E]>,
    /// Whether the product is added to what is there.
    pub(crate) add: bool,
    /// Where `w` comes from memory: the weights that are needed after it. Asking for them early pays.
    pub(crate) next: Option<&'a [E]>,
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
fn multiply<P: Product<Number: Element>>(product: P, gemm: &Gemm<'_, P::Number>) {
    let (rows, columns) = (gemm.x.len() / gemm.depth, gemm.w.len() / gemm.depth);
    let row_bytes = gemm.depth * size_of::<P::Number>();
    let row_block = (CACHED_ACTIVATIONS / row_bytes).max(1).next_multiple_of(3);
    for first_row in (0..rows).step_by(row_block) {
        let last_row = (first_row + row_block).min(rows);
        for n in (0..columns).step_by(COLUMN_BLOCK) {
            let block = n..(n + COLUMN_BLOCK).min(columns);
            let mut ahead = Ahead::none();
            if let Some(next) = gemm.next {
                let weights = gemm.w.get(block.end * gemm.depth..).filter(|w| !w.is_empty());
                ahead = Ahead::of::<P>(weights.unwrap_or(next), gemm.depth, last_row - first_row);
            }
            let mut m = first_row;
            while m < last_row {
                m += strip(product, gemm, m, last_row, block.clone(), &mut ahead);
            }
        }
    }
}

/// The weights of the next block, fetched from memory bit by bit while this block is computed. The hardware's own
/// prefetcher loses its way between the rows.
struct Ahead {
    next: *const u8,
    end: *const u8,
    /// Lines to ask for in each step along the depth.
    lines: usize,
}

impl Ahead {
    #[inline(always)]
    fn none() -> Self {
        Self { next: std::ptr::null(), end: std::ptr::null(), lines: 0 }
    }

    /// Spreads the first block of `weights` over all steps of the block before it.
    #[inline(always)]
    fn of<P: Product>(weights: &[P::Number], depth: usize, rows: usize) -> Self {
        let bytes = weights.len().min(COLUMN_BLOCK * depth) * size_of::<P::Number>();
        let next: *const u8 = weights.as_ptr().cast();
        let width = if P::Simd::MANY_REGISTERS || rows == 1 { 8 } else { 4 };
        let tiles = rows.div_ceil(3) * (COLUMN_BLOCK / width);
        let steps = tiles * (depth * size_of::<P::Number>()).div_ceil(size_of::<P::Chunk>());
        Self { next, end: next.wrapping_add(bytes), lines: bytes.div_ceil(LINE).div_ceil(steps) }
    }

    #[inline(always)]
    fn fetch<S: Simd>(&mut self, simd: S) {
        for _ in 0..self.lines {
            simd.prefetch(self.next);
            self.next = self.next.wrapping_add(LINE);
        }
        if self.next >= self.end {
            self.lines = 0;
        }
    }
}

/// Computes as many rows as registers allow, and says how many.
#[inline(always)]
fn strip<P: Product<Number: Element>>(
    product: P,
    gemm: &Gemm<'_, P::Number>,
    m: usize,
    last_row: usize,
    block: Range<usize>,
    ahead: &mut Ahead,
) -> usize {
    match (last_row - m, P::Simd::MANY_REGISTERS) {
        (1, _) => tiles::<P, 1, 8>(product, gemm, m, block, ahead),
        (2 | 4, true) => tiles::<P, 2, 8>(product, gemm, m, block, ahead),
        (2 | 4, false) => tiles::<P, 2, 4>(product, gemm, m, block, ahead),
        (_, true) => tiles::<P, 3, 8>(product, gemm, m, block, ahead),
        (_, false) => tiles::<P, 3, 4>(product, gemm, m, block, ahead),
    }
}

#[inline(always)]
fn tiles<P: Product<Number: Element>, const R: usize, const C: usize>(
    product: P,
    gemm: &Gemm<'_, P::Number>,
    m: usize,
    block: Range<usize>,
    ahead: &mut Ahead,
) -> usize {
    let mut n = block.start;
    while n + C <= block.end {
        tile::<P, R, C>(product, gemm, m, n, ahead);
        n += C;
    }
    while n < block.end {
        tile::<P, R, 1>(product, gemm, m, n, ahead);
        n += 1;
    }
    R
}

/// Computes `R` rows by `C` columns and puts them where they belong.
#[inline(always)]
fn tile<P: Product<Number: Element>, const R: usize, const C: usize>(
    product: P,
    gemm: &Gemm<'_, P::Number>,
    m: usize,
    n: usize,
    ahead: &mut Ahead,
) {
    let depth = gemm.depth;
    let mut x: [&[P::Number]; R] = [&[]; R];
    let mut w: [&[P::Number]; C] = [&[]; C];
    for (i, x) in x.iter_mut().enumerate() {
        *x = &gemm.x[(m + i) * depth..][..depth];
    }
    for (j, w) in w.iter_mut().enumerate() {
        *w = &gemm.w[(n + j) * depth..][..depth];
    }
    let mut bias = [0.0; C];
    if let Some(numbers) = gemm.bias {
        bias = std::array::from_fn(|j| numbers[n + j].wide());
    }
    let sums = dots(product, x, w, ahead);
    for (i, sums) in sums.iter().enumerate() {
        let start = (m + i) * gemm.out.stride + gemm.out.first + n;
        // SAFETY: these columns are this thread's alone, as whoever made the `Columns` promised.
        let out = unsafe { gemm.out.matrix.part(start..start + C) };
        for ((out, &sum), bias) in out.iter_mut().zip(sums).zip(bias) {
            let before = if gemm.add { *out } else { 0.0 };
            *out = before + (sum + bias);
        }
    }
}

/// Returns the dot products of each `x` with each `w`; all are equally long.
#[inline(always)]
fn dots<P: Product, const R: usize, const C: usize>(
    product: P,
    x: [&[P::Number]; R],
    w: [&[P::Number]; C],
    ahead: &mut Ahead,
) -> [[f32; C]; R] {
    let simd = product.simd();
    let mut sums = [[simd.splat(0.0); C]; R];
    let steps = chunks::<P::Number, P::Chunk>(x[0]).len();
    // Cut to the same length, so that the loop needs no bounds checks.
    let mut xs: [&[P::Chunk]; R] = [&[]; R];
    let mut ws: [&[P::Chunk]; C] = [&[]; C];
    for i in 0..R {
        xs[i] = &chunks(x[i])[..steps];
    }
    for j in 0..C {
        ws[j] = &chunks(w[j])[..steps];
    }
    for k in 0..steps {
        ahead.fetch(simd);
        // The rows stay in registers while the columns pass by: beside the sums there is no room for both.
        let mut held = [product.load(&xs[0][k]); R];
        for i in 1..R {
            held[i] = product.load(&xs[i][k]);
        }
        for j in 0..C {
            let passing = product.load(&ws[j][k]);
            for i in 0..R {
                sums[i][j] = product.mul_add(held[i], passing, sums[i][j]);
            }
        }
    }
    // No closures where there are registers: those are compiled without the instruction set.
    let mut totals = [[0.0; C]; R];
    for i in 0..R {
        totals[i] = simd.sums(sums[i]);
    }
    // What the last whole chunk leaves over. Not before: a branch would put all the registers into memory.
    for i in 0..R {
        let Some(rest) = padded(x[i]) else { break };
        let rest = product.load(&rest);
        for j in 0..C {
            // As long as `x`, so there is a rest here too.
            let Some(weights) = padded(w[j]) else { break };
            let sum = product.mul_add(rest, product.load(&weights), simd.splat(0.0));
            totals[i][j] += simd.sum(sum);
        }
    }
    totals
}
