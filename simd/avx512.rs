//! 512-bit vectors: AVX-512 as every server processor has it (F, BW, DQ, VL), and its bf16 dot products where there
//! are any. Without VL the compiler can use but half of the registers.

use std::arch::x86_64::*;

use half::bf16;

use super::{
    Op,
    vector::{Product, Set, Simd, Widened},
};

/// The proof that this processor has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

/// The proof that this processor has AVX-512 and its bf16 instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512Bf16(Avx512);

impl Avx512 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Self(()))
    }

    /// Runs a kernel that was compiled for this set.
    #[inline(always)]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn compiled<O: Op>(set: Avx512, op: O) -> O::Output {
            op.run(set)
        }
        // SAFETY: `detect` found the features, else there were no `self`.
        unsafe { compiled(self, op) }
    }
}

impl Avx512Bf16 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Self> {
        Avx512::detect().filter(|_| is_x86_feature_detected!("avx512bf16")).map(Self)
    }

    /// Runs a kernel that was compiled for this set.
    #[inline(always)]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
        fn compiled<O: Op>(set: Avx512Bf16, op: O) -> O::Output {
            op.run(set)
        }
        // SAFETY: `detect` found the features, else there were no `self`.
        unsafe { compiled(self, op) }
    }
}

impl Simd for Avx512 {
    type Vector = __m512;
    type Chunk = [f32; 16];
    type HalfChunk = [bf16; 16];
    const LANES: usize = 16;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `detect` found AVX-512 F, else there were no `self`.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        // SAFETY: `detect` found AVX-512 F; the reference covers sixteen floats, and the load asks for no alignment.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn widen(self, from: &[bf16; 16]) -> __m512 {
        // SAFETY: `detect` found AVX-512 F, which includes AVX; the reference covers sixteen 16-bit numbers.
        let halves = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        // SAFETY: `detect` found AVX-512 F; so for the two below.
        let low = unsafe { _mm512_cvtepu16_epi32(halves) };
        // SAFETY: as above.
        let bits = unsafe { _mm512_slli_epi32::<16>(low) };
        // SAFETY: as above.
        unsafe { _mm512_castsi512_ps(bits) }
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; 16]) {
        // SAFETY: `detect` found AVX-512 F; the reference covers sixteen floats, and the store asks for no alignment.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F. The upper four bits of the constant, the scale, are 0: to integers.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x) }
    }

    #[inline(always)]
    fn scale_by_power(self, x: __m512, n: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        // Not the reduce intrinsic, whose order the compiler may choose anew at each place.
        // SAFETY: `detect` found AVX-512 F; so for the four below.
        let low = unsafe { _mm512_castps512_ps256(x) };
        // SAFETY: as above.
        let doubles = unsafe { _mm512_castps_pd(x) };
        // SAFETY: as above.
        let upper = unsafe { _mm512_extractf64x4_pd::<1>(doubles) };
        // SAFETY: as above.
        let high = unsafe { _mm256_castpd_ps(upper) };
        // SAFETY: as above.
        let x: [f32; 8] = bytemuck::cast(unsafe { _mm256_add_ps(low, high) });
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    #[inline(always)]
    fn sums<const N: usize>(self, x: [__m512; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        let (eights, rest) = x.as_chunks::<8>();
        for (sums, x) in sums.as_chunks_mut::<8>().0.iter_mut().zip(eights) {
            *sums = self.sums_of_eight(*x);
        }
        for (sum, x) in sums[N - rest.len()..].iter_mut().zip(rest) {
            *sum = self.sum(*x);
        }
        sums
    }

    #[inline(always)]
    fn largest(self, x: __m512) -> f32 {
        // SAFETY: `detect` found AVX-512 F.
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        // SAFETY: the processor has SSE, and a prefetch does nothing where there is no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.cast()) }
    }
}

impl Set for Avx512 {
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

impl Set for Avx512Bf16 {
    type Simd = Avx512;
    type Bf16 = Self;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn bf16(self) -> Self {
        self
    }
}

/// Pairs of bf16 products, two per lane.
impl Product for Avx512Bf16 {
    type Simd = Avx512;
    type Number = bf16;
    type Chunk = [bf16; 32];
    type Operand = __m512bh;

    #[inline(always)]
    fn simd(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn load(self, from: &[bf16; 32]) -> __m512bh {
        // SAFETY: `detect` found AVX-512 F; the reference covers 64 bytes, and the load asks for no alignment.
        let bits = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
        // SAFETY: both types are 64 plain bytes.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
    }

    #[inline(always)]
    fn splat(self, from: &[bf16]) -> __m512bh {
        let pair = i32::from(from[1].to_bits()) << 16 | i32::from(from[0].to_bits());
        // SAFETY: `detect` found AVX-512 F.
        let bits = unsafe { _mm512_set1_epi32(pair) };
        // SAFETY: both types are 64 plain bytes.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
    }

    #[inline(always)]
    fn mul_add(self, x: __m512bh, w: __m512bh, sum: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 BF16.
        unsafe { _mm512_dpbf16_ps(sum, x, w) }
    }
}

impl Avx512 {
    /// Adds pairs of registers up, four times over: what comes out holds the sums of all eight, each in the order of
    /// [`Simd::sum`], at less than three instructions a sum.
    #[inline(always)]
    fn sums_of_eight(self, x: [__m512; 8]) -> [f32; 8] {
        let low = self.quarters(self.halves(x[0], x[1]), self.halves(x[2], x[3]));
        let high = self.quarters(self.halves(x[4], x[5]), self.halves(x[6], x[7]));
        // Within each quarter: (l0 h0 l1 h1) + (l2 h2 l3 h3), then the two halves of that.
        // SAFETY: `detect` found AVX-512 F; so for the two below.
        let first = unsafe { _mm512_unpacklo_ps(low, high) };
        // SAFETY: as above.
        let second = unsafe { _mm512_unpackhi_ps(low, high) };
        let pairs = self.add(first, second);
        // SAFETY: as above.
        let swapped = unsafe { _mm512_permute_ps::<0b01_00_11_10>(pairs) };
        let mut sums = [0.0; 16];
        self.store(self.add(pairs, swapped), &mut sums);
        [sums[0], sums[4], sums[8], sums[12], sums[1], sums[5], sums[9], sums[13]]
    }

    /// Of registers in quarters: `(a0 a1 b0 b1) + (a2 a3 b2 b3)`.
    #[inline(always)]
    fn halves(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        let first = unsafe { _mm512_shuffle_f32x4::<0x44>(a, b) };
        // SAFETY: as above.
        let second = unsafe { _mm512_shuffle_f32x4::<0xee>(a, b) };
        self.add(first, second)
    }

    /// Of two [`Self::halves`], `(a a b b)` and `(c c d d)`: `(a b c d)`.
    #[inline(always)]
    fn quarters(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `detect` found AVX-512 F.
        let first = unsafe { _mm512_shuffle_f32x4::<0x88>(a, b) };
        // SAFETY: as above.
        let second = unsafe { _mm512_shuffle_f32x4::<0xdd>(a, b) };
        self.add(first, second)
    }
}
