//! Plain Rust, for every processor: judges the other sets.

use half::bf16;

use super::vector::{Set, Simd, Widened};

/// Eight lanes that the compiler may or may not turn into vectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const LANES: usize = 8;

/// Applies `f` lane by lane.
#[inline(always)]
fn lanes(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type Vector = [f32; LANES];
    type Chunk = [f32; LANES];
    type HalfChunk = [bf16; LANES];
    const LANES: usize = LANES;
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &Self::Chunk) -> Self::Vector {
        *from
    }

    #[inline(always)]
    fn widen(self, from: &Self::HalfChunk) -> Self::Vector {
        from.map(|x| f32::from_bits(u32::from(x.to_bits()) << 16))
    }

    #[inline(always)]
    fn store(self, x: Self::Vector, to: &mut Self::Chunk) {
        *to = x;
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        // Not `f32::mul_add`: without the instruction that is a slow library call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        lanes(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, x: Self::Vector) -> Self::Vector {
        // At 1.5 * 2^23 the spacing of f32 is 1, so the addition rounds.
        const SHIFT: f32 = 12_582_912.0;
        x.map(|x| (x + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn scale_by_power(self, x: Self::Vector, n: Self::Vector) -> Self::Vector {
        lanes(x, n, |x, n| f32::from_bits(x.to_bits().wrapping_add_signed((n as i32) << 23)))
    }

    #[inline(always)]
    fn sum(self, x: Self::Vector) -> f32 {
        ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
    }

    #[inline(always)]
    fn largest(self, x: Self::Vector) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

impl Set for Portable {
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
