//! What happens to a row at a time, and the way back: norms, gates, sums.
//!
//! Loops are plain, so that they are compiled for each instruction set; sums run in one order whatever the threads.

use crate::simd::{Element, Op, Set, Simd, chunks, chunks_mut, exp, padded, unpad};

type Chunk<K> = <<K as Set>::Simd as Simd>::Chunk;

/// The sum of `a_i b_i`.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = simd.splat(0.0);
    for (a, b) in chunks::<f32, S::Chunk>(a).iter().zip(chunks::<f32, S::Chunk>(b)) {
        sum = simd.mul_add(simd.load(a), simd.load(b), sum);
    }
    if let (Some(a), Some(b)) = (padded::<f32, S::Chunk>(a), padded::<f32, S::Chunk>(b)) {
        sum = simd.mul_add(simd.load(&a), simd.load(&b), sum);
    }
    simd.sum(sum)
}

/// `y = x / rms(x) weight`, `rms(x) = sqrt(mean(x^2) + eps)`, row by row (Zhang and Sennrich, 2019).
pub(super) struct RmsNorm<'a, E> {
    /// `[rows, weight.len()]`
    pub(super) x: &'a [f32],
    pub(super) weight: &'a [E],
    pub(super) eps: f32,
    pub(super) out: &'a mut [E],
}

impl<E: Element> Op for RmsNorm<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let width = self.weight.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let scale = inverse_rms(set.simd(), x, self.eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
                *out = E::of(x * scale * weight.wide());
            }
        }
    }
}

#[inline(always)]
pub(super) fn inverse_rms<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(simd, x, x) / x.len() as f32 + eps).sqrt()
}

/// The way back through [`RmsNorm`]: with `n = x / rms(x)` and `g = d_out weight`,
/// `d_x += (g - n mean(g n)) / rms(x)` and `d_weight = sum of d_out n` over the rows.
pub(super) struct RmsNormBack<'a, E> {
    pub(super) x: &'a [f32],
    pub(super) weight: &'a [E],
    pub(super) eps: f32,
    pub(super) d_out: &'a [E],
    pub(super) d_x: &'a mut [f32],
    pub(super) d_weight: &'a mut [f32],
}

impl<E: Element> Op for RmsNormBack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let width = self.weight.len();
        self.d_weight.fill(0.0);
        let norm = (self.weight, self.eps);
        let (mut out, mut slope) = (vec![0.0; width], vec![0.0; width]);
        let rows = self.x.chunks_exact(width).zip(self.d_out.chunks_exact(width));
        for ((x, d_out), d_x) in rows.zip(self.d_x.chunks_exact_mut(width)) {
            for (wide, d_out) in out.iter_mut().zip(d_out) {
                *wide = d_out.wide();
            }
            rms_norm_back(set.simd(), x, norm, &out, &mut slope, self.d_weight);
            for (d_x, slope) in d_x.iter_mut().zip(&slope) {
                *d_x += slope;
            }
        }
    }
}

/// One row of [`RmsNormBack`]: writes the derivative with respect to `x`, adds that with respect to `weight`.
#[inline(always)]
pub(super) fn rms_norm_back<S: Simd, E: Element>(
    simd: S,
    x: &[f32],
    (weight, eps): (&[E], f32),
    d_out: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
) {
    let scale = inverse_rms(simd, x, eps);
    for ((d_x, d_out), weight) in d_x.iter_mut().zip(d_out).zip(weight) {
        *d_x = d_out * weight.wide();
    }
    let shared = dot(simd, d_x, x) * scale * scale / x.len() as f32;
    for (((d_x, d_weight), d_out), x) in d_x.iter_mut().zip(d_weight).zip(d_out).zip(x) {
        *d_x = scale * (*d_x - shared * x);
        *d_weight += d_out * x * scale;
    }
}

/// `out = silu(gate) up`, `silu(x) = x / (1 + e^-x)` (Shazeer, 2020), row by row.
pub(super) struct SiluMul<'a, E> {
    /// `[rows, up + gate]`, equally wide.
    pub(super) up_gate: &'a [E],
    pub(super) width: usize,
    /// `[rows, width]`
    pub(super) out: &'a mut [E],
}

impl<E: Element> Op for SiluMul<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let mut share = vec![0.0; self.width];
        let rows = self.up_gate.chunks_exact(2 * self.width);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.width)) {
            let (up, gate) = row.split_at(self.width);
            sigmoid(set, gate, &mut share);
            for (((out, up), gate), share) in out.iter_mut().zip(up).zip(gate).zip(&share) {
                *out = E::of(gate.wide() * share * up.wide());
            }
        }
    }
}

/// The way back through [`SiluMul`]: with `s = 1 / (1 + e^-gate)`, `d_up = d_out gate s` and
/// `d_gate = d_out up s (1 + gate (1 - s))`.
pub(super) struct SiluMulBack<'a, E> {
    pub(super) up_gate: &'a [E],
    pub(super) width: usize,
    pub(super) d_out: &'a [E],
    /// As `up_gate`.
    pub(super) d_up_gate: &'a mut [E],
}

impl<E: Element> Op for SiluMulBack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let mut share = vec![0.0; self.width];
        let rows = self.up_gate.chunks_exact(2 * self.width);
        let d_rows = self.d_out.chunks_exact(self.width);
        for ((row, d_out), d_row) in
            rows.zip(d_rows).zip(self.d_up_gate.chunks_exact_mut(2 * self.width))
        {
            let (up, gate) = row.split_at(self.width);
            let (d_up, d_gate) = d_row.split_at_mut(self.width);
            sigmoid(set, gate, &mut share);
            let inputs = up.iter().zip(gate).zip(d_out).zip(&share);
            for ((d_up, d_gate), (((up, gate), d_out), share)) in
                d_up.iter_mut().zip(d_gate).zip(inputs)
            {
                let (up, gate, d_out) = (up.wide(), gate.wide(), d_out.wide());
                *d_up = E::of(d_out * gate * share);
                *d_gate = E::of(d_out * up * share * (1.0 + gate * (1.0 - share)));
            }
        }
    }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
fn sigmoid<K: Set, E: Element>(set: K, x: &[E], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x.wide();
    }
    let rest = padded::<f32, Chunk<K>>(out);
    for chunk in chunks_mut::<f32, Chunk<K>>(out) {
        sigmoids(set.simd(), chunk);
    }
    if let Some(mut rest) = rest {
        sigmoids(set.simd(), &mut rest);
        unpad(&rest, out);
    }
}

#[inline(always)]
fn sigmoids<S: Simd>(simd: S, chunk: &mut S::Chunk) {
    let e = exp(simd, simd.mul(simd.load(chunk), simd.splat(-1.0)));
    simd.store(simd.div(simd.splat(1.0), simd.add(simd.splat(1.0), e)), chunk);
}

/// `out = x + y`, in f32.
pub(super) struct Add<'a, E> {
    pub(super) x: &'a [f32],
    pub(super) y: &'a [E],
    pub(super) out: &'a mut [f32],
}

impl<E: Element> Op for Add<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        for ((out, x), y) in self.out.iter_mut().zip(self.x).zip(self.y) {
            *out = x + y.wide();
        }
    }
}

/// `sum += part`, in f32.
pub(super) struct Accumulate<'a, E> {
    pub(super) sum: &'a mut [f32],
    pub(super) part: &'a [E],
}

impl<E: Element> Op for Accumulate<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        for (sum, part) in self.sum.iter_mut().zip(self.part) {
            *sum += part.wide();
        }
    }
}

/// Numbers in the format that products take.
pub(super) struct Narrow<'a, E> {
    pub(super) from: &'a [f32],
    pub(super) to: &'a mut [E],
}

impl<E: Element> Op for Narrow<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        crate::simd::narrow(self.from, self.to);
    }
}

/// Adds a bias to each row.
pub(super) struct AddBias<'a, E> {
    pub(super) rows: &'a mut [E],
    pub(super) bias: &'a [E],
}

impl<E: Element> Op for AddBias<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        for row in self.rows.chunks_exact_mut(self.bias.len()) {
            for (x, bias) in row.iter_mut().zip(self.bias) {
                *x = E::of(x.wide() + bias.wide());
            }
        }
    }
}

/// Adds up the rows of some columns: the gradient of a bias.
pub(super) struct SumRows<'a, E> {
    /// `[rows, width]`
    pub(super) rows: &'a [E],
    pub(super) width: usize,
    /// Which column comes first.
    pub(super) start: usize,
    /// As many sums as there are columns, added to.
    pub(super) sums: &'a mut [f32],
}

impl<E: Element> Op for SumRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        for row in self.rows.chunks_exact(self.width) {
            let row = &row[self.start..self.start + self.sums.len()];
            for (sum, x) in self.sums.iter_mut().zip(row) {
                *sum += x.wide();
            }
        }
    }
}

/// Rows of a matrix, in another order: `out[i] = from[rows[i]]`.
pub(super) struct Gather<'a, T> {
    pub(super) from: &'a [T],
    pub(super) rows: &'a [usize],
    pub(super) width: usize,
    pub(super) out: &'a mut [T],
}

impl<T: Copy + Sync> Op for Gather<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        for (out, &row) in self.out.chunks_exact_mut(self.width).zip(self.rows) {
            out.copy_from_slice(&self.from[row * self.width..][..self.width]);
        }
    }
}
