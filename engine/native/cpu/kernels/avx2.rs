//! 256-bit vectors with fused multiply-add: AVX2 and FMA.

use std::arch::x86_64::*;

use half::bf16;

use super::{
    Op,
    simd::{Set, Simd, Widened},
};

/// The proof that this processor has AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        has.then_some(Self(()))
    }

    /// Runs a kernel that was compiled for this set.
    #[inline(always)]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma")]
        fn compiled<O: Op>(set: Avx2, op: O) -> O::Output {
            op.run(set)
        }
        // SAFETY: `detect` found both features, else there were no `self`.
        unsafe { compiled(self, op) }
    }
}

impl Simd for Avx2 {
    type Vector = __m256;
    type Chunk = [f32; 8];
    type HalfChunk = [bf16; 8];
    const LANES: usize = 8;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `detect` found AVX, else there were no `self`.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 8]) -> __m256 {
        // SAFETY: `detect` found AVX; the reference covers eight floats, and the load asks for no alignment.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn widen(self, from: &[bf16; 8]) -> __m256 {
        // SAFETY: `detect` found AVX; the reference covers eight 16-bit numbers, and the load asks for no alignment.
        let halves = unsafe { _mm_loadu_si128(from.as_ptr().cast()) };
        // SAFETY: `detect` found AVX2.
        let low = unsafe { _mm256_cvtepu16_epi32(halves) };
        // SAFETY: `detect` found AVX2.
        let bits = unsafe { _mm256_slli_epi32::<16>(low) };
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_castsi256_ps(bits) }
    }

    #[inline(always)]
    fn store(self, x: __m256, to: &mut [f32; 8]) {
        // SAFETY: `detect` found AVX; the reference covers eight floats, and the store asks for no alignment.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `detect` found FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, x: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }

    #[inline(always)]
    fn scale_by_power(self, x: __m256, n: __m256) -> __m256 {
        // SAFETY: `detect` found AVX2; so for the three below.
        let n = unsafe { _mm256_cvtps_epi32(n) };
        // SAFETY: as above. 23 is where an f32 has its exponent.
        let shifted = unsafe { _mm256_slli_epi32::<23>(n) };
        // SAFETY: as above.
        let bits = unsafe { _mm256_castps_si256(x) };
        // SAFETY: as above.
        let scaled = unsafe { _mm256_add_epi32(bits, shifted) };
        // SAFETY: as above.
        unsafe { _mm256_castsi256_ps(scaled) }
    }

    #[inline(always)]
    fn sum(self, x: __m256) -> f32 {
        let x: [f32; 8] = bytemuck::cast(x);
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    #[inline(always)]
    fn largest(self, x: __m256) -> f32 {
        let x: [f32; 8] = bytemuck::cast(x);
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

impl Set for Avx2 {
    type Simd = Self;
    type Bf16 = Widened<Self>;

    #[inline(always)]
    fn simd(self) -> Self {
        self
    }

    #[inline(always)]
    fn bf16(self) -> Widened<Self> {
        Widened(self)
    }
}
