//! What happens to a row at a time, and the way back: norms, gates, sums.
//!
//! Loops are plain, so that they are compiled for each instruction set; sums run in one order whatever the threads.

use bytemuck::Zeroable;

use crate::simd::{
    Element, Op, Set, Simd, chunks, chunks_mut, dot, exp, inverse_rms, padded, unpad,
};

/// As many numbers as a register of a set has lanes.
type Chunk<E, K> = <E as Element>::Chunk<<K as Set>::Simd>;

/// The way back through [`RmsNorm`](crate::simd::RmsNorm): with `n = x / rms(x)` and `g = d_out weight`,
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
        let rows = self.up_gate.chunks_exact(2 * self.width);
        for (row, out) in rows.zip(self.out.chunks_exact_mut(self.width)) {
            let (up, gate) = row.split_at(self.width);
            let inputs = chunks::<E, Chunk<E, K>>(up).iter().zip(chunks::<E, Chunk<E, K>>(gate));
            for (out, (up, gate)) in chunks_mut::<E, Chunk<E, K>>(out).iter_mut().zip(inputs) {
                silu_mul::<K::Simd, E>(set.simd(), up, gate, out);
            }
            if let (Some(up), Some(gate)) = (padded(up), padded(gate)) {
                let mut rest = Chunk::<E, K>::zeroed();
                silu_mul::<K::Simd, E>(set.simd(), &up, &gate, &mut rest);
                unpad(&rest, out);
            }
        }
    }
}

#[inline(always)]
fn silu_mul<S: Simd, E: Element>(
    simd: S,
    up: &E::Chunk<S>,
    gate: &E::Chunk<S>,
    out: &mut E::Chunk<S>,
) {
    let (up, gate) = (E::load(simd, up), E::load(simd, gate));
    E::store(simd, simd.mul(simd.mul(gate, sigmoid(simd, gate)), up), out);
}

/// `1 / (1 + e^-x)`
#[inline(always)]
fn sigmoid<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let e = exp(simd, simd.mul(x, simd.splat(-1.0)));
    simd.div(simd.splat(1.0), simd.add(simd.splat(1.0), e))
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
        let rows = self.up_gate.chunks_exact(2 * self.width);
        let d_rows = self.d_up_gate.chunks_exact_mut(2 * self.width);
        for ((row, d_row), d_out) in rows.zip(d_rows).zip(self.d_out.chunks_exact(self.width)) {
            let (up, gate) = row.split_at(self.width);
            let (d_up, d_gate) = d_row.split_at_mut(self.width);
            let inputs = chunks::<E, Chunk<E, K>>(up).iter().zip(chunks::<E, Chunk<E, K>>(gate));
            let inputs = inputs.zip(chunks::<E, Chunk<E, K>>(d_out));
            let outputs = chunks_mut::<E, Chunk<E, K>>(d_up).iter_mut();
            let outputs = outputs.zip(chunks_mut::<E, Chunk<E, K>>(d_gate));
            for (out, ((up, gate), d_out)) in outputs.zip(inputs) {
                silu_mul_back::<K::Simd, E>(set.simd(), [up, gate, d_out], out);
            }
            if let (Some(up), Some(gate), Some(d_out)) = (padded(up), padded(gate), padded(d_out)) {
                let mut rest = [Chunk::<E, K>::zeroed(); 2];
                let [d_up_rest, d_gate_rest] = &mut rest;
                let out = (d_up_rest, d_gate_rest);
                silu_mul_back::<K::Simd, E>(set.simd(), [&up, &gate, &d_out], out);
                unpad(&rest[0], d_up);
                unpad(&rest[1], d_gate);
            }
        }
    }
}

#[inline(always)]
fn silu_mul_back<S: Simd, E: Element>(
    simd: S,
    [up, gate, d_out]: [&E::Chunk<S>; 3],
    (d_up, d_gate): (&mut E::Chunk<S>, &mut E::Chunk<S>),
) {
    let (up, gate, d_out) = (E::load(simd, up), E::load(simd, gate), E::load(simd, d_out));
    let share = sigmoid(simd, gate);
    let scaled = simd.mul(d_out, share);
    E::store(simd, simd.mul(scaled, gate), d_up);
    let (one, minus) = (simd.splat(1.0), simd.splat(-1.0));
    let rest = simd.mul_add(share, minus, one);
    E::store(simd, simd.mul(simd.mul(scaled, up), simd.mul_add(gate, rest, one)), d_gate);
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
