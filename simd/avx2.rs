//! 256-bit vectors with fused multiply-add: AVX2 and FMA.

use std::arch::x86_64::*;

use half::bf16;

use super::{
    Op,
    vector::{Set, Simd, Widened},
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
    fn sums<const N: usize>(self, x: [__m256; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        let (fours, rest) = x.as_chunks::<4>();
        for (sums, x) in sums.as_chunks_mut::<4>().0.iter_mut().zip(fours) {
            *sums = self.sums_of_four(*x);
        }
        for (sum, x) in sums[N - rest.len()..].iter_mut().zip(rest) {
            *sum = self.sum(*x);
        }
        sums
    }

    #[inline(always)]
    fn largest(self, x: __m256) -> f32 {
        let x: [f32; 8] = bytemuck::cast(x);
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        // SAFETY: the processor has SSE, and a prefetch does nothing where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
    }
}

impl Avx2 {
    /// Adds pairs of registers up, three times over: what comes out holds the sums of all four, each in the order of
    /// [`Simd::sum`].
    #[inline(always)]
    fn sums_of_four(self, x: [__m256; 4]) -> [f32; 4] {
        let (low, high) = (self.halves(x[0], x[1]), self.halves(x[2], x[3]));
        // Within each half: (l0 h0 l1 h1) + (l2 h2 l3 h3), then the two halves of that.
        // SAFETY: `detect` found AVX; so for the two below.
        let first = unsafe { _mm256_unpacklo_ps(low, high) };
        // SAFETY: as above.
        let second = unsafe { _mm256_unpackhi_ps(low, high) };
        let pairs = self.add(first, second);
        // SAFETY: as above.
        let swapped = unsafe { _mm256_permute_ps::<0b01_00_11_10>(pairs) };
        let sums: [f32; 8] = bytemuck::cast(self.add(pairs, swapped));
        [sums[0], sums[4], sums[1], sums[5]]
    }

    /// Of registers in halves: `(a0 b0) + (a1 b1)`.
    #[inline(always)]
    fn halves(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `detect` found AVX.
        let first = unsafe { _mm256_permute2f128_ps::<0x20>(a, b) };
        // SAFETY: as above.
        let second = unsafe { _mm256_permute2f128_ps::<0x31>(a, b) };
        self.add(first, second)
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
