//! What happens to one token at a time: norms, rotations, gates, exponentials.

use crate::simd::{
    Element, Op, Set, Simd, chunks, chunks_mut, exp, inverse_rms, narrow, padded, unpad,
};

/// Normalises (where there is a weight) and rotates heads in place: what happens to q and k before attention.
///
/// The rotation takes dimensions i and i + head_dim / 2 as a pair (Su et al., 2021; the layout of Hugging Face).
pub(crate) struct Rotate<'a, E> {
    /// Heads of one token, one after the other.
    pub(crate) heads: &'a mut [f32],
    /// RMSNorm weight of a head, with its epsilon.
    pub(crate) norm: Option<(&'a [E], f32)>,
    /// Cosines and sines of the token's position, `head_dim / 2` of each.
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

impl<E: Element> Op for Rotate<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let half = self.cos.len();
        for head in self.heads.chunks_exact_mut(2 * half) {
            if let Some((weight, eps)) = self.norm {
                let scale = inverse_rms(set.simd(), head, eps);
                for (x, weight) in head.iter_mut().zip(weight) {
                    *x = *x * scale * weight.wide();
                }
            }
            let (first, second) = head.split_at_mut(half);
            let pairs = first.iter_mut().zip(second);
            for ((a, b), (cos, sin)) in pairs.zip(self.cos.iter().zip(self.sin)) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// `out = silu(gate) · up`, `silu(x) = x / (1 + e^-x)` (Shazeer, 2020); `gate` keeps the product before it is rounded.
pub(crate) struct SiluMul<'a, E> {
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
    pub(crate) out: &'a mut [E],
}

impl<E: Element> Op for SiluMul<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let simd = set.simd();
        let rest = padded::<f32, Chunk<K>>(self.gate).zip(padded::<f32, Chunk<K>>(self.up));
        let whole = chunks_mut::<f32, Chunk<K>>(self.gate);
        for (gate, up) in whole.iter_mut().zip(chunks::<f32, Chunk<K>>(self.up)) {
            silu_mul(simd, gate, up);
        }
        if let Some((mut gate, up)) = rest {
            silu_mul(simd, &mut gate, &up);
            unpad(&gate, self.gate);
        }
        narrow(self.gate, self.out);
    }
}

type Chunk<K> = <<K as Set>::Simd as Simd>::Chunk;

#[inline(always)]
fn silu_mul<S: Simd>(simd: S, gate: &mut S::Chunk, up: &S::Chunk) {
    let x = simd.load(gate);
    let denominator = simd.add(simd.splat(1.0), exp(simd, simd.mul(x, simd.splat(-1.0))));
    simd.store(simd.mul(simd.div(x, denominator), simd.load(up)), gate);
}

/// Turns scores into weights: `p_j = e^(scale·s_j - max)`, in place; returns `1 / Σ p_j`.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(simd: S, scores: &mut [f32], scale: f32) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    let mut peak = simd.splat(largest);
    for chunk in chunks::<f32, S::Chunk>(scores) {
        peak = simd.max(peak, simd.load(chunk));
    }
    for &score in &scores[chunks::<f32, S::Chunk>(scores).len() * S::LANES..] {
        largest = largest.max(score);
    }
    // `scale` is positive, so the largest score stays the largest.
    let shift = simd.splat(-scale * largest.max(simd.largest(peak)));
    let scale = simd.splat(scale);
    let rest = padded::<f32, S::Chunk>(scores);
    let mut sum = simd.splat(0.0);
    for chunk in chunks_mut::<f32, S::Chunk>(scores) {
        let weight = exp(simd, simd.mul_add(simd.load(chunk), scale, shift));
        sum = simd.add(sum, weight);
        simd.store(weight, chunk);
    }
    if let Some(mut rest) = rest {
        let weight = exp(simd, simd.mul_add(simd.load(&rest), scale, shift));
        simd.store(weight, &mut rest);
        unpad(&rest, scores);
        // Once more from memory: what lies beyond the end must count as 0, not as the weight of a score of 0.
        if let Some(rest) = padded::<f32, S::Chunk>(scores) {
            sum = simd.add(sum, simd.load(&rest));
        }
    }
    1.0 / simd.sum(sum)
}
