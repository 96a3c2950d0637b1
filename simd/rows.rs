//! What engine and trainer both do to rows of numbers.

use super::{Element, Op, Set, Simd, chunks, narrow, padded};

/// The sum of `a_i b_i`; both are equally long.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = simd.splat(0.0);
    for (a, b) in chunks::<f32, S::Chunk>(a).iter().zip(chunks::<f32, S::Chunk>(b)) {
        sum = simd.mul_add(simd.load(a), simd.load(b), sum);
    }
    if let (Some(a), Some(b)) = (padded::<f32, S::Chunk>(a), padded::<f32, S::Chunk>(b)) {
        sum = simd.mul_add(simd.load(&a), simd.load(&b), sum);
    }
    simd.sum(sum)
}

/// `1 / rms(x)`, `rms(x) = sqrt(mean(x²) + eps)`.
#[inline(always)]
pub(crate) fn inverse_rms<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(simd, x, x) / x.len() as f32 + eps).sqrt()
}

/// `y = x / rms(x) · weight` (Zhang and Sennrich, 2019), row by row.
pub(crate) struct RmsNorm<'a, E> {
    /// `[rows, weight.len()]`
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [E],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [E],
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

/// Writes numbers in the format that products take; both slices are equally long.
pub(crate) struct Narrow<'a, E> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [E],
}

impl<E: Element> Op for Narrow<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        narrow(self.from, self.to);
    }
}
