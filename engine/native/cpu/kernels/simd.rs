//! What the kernels ask of a processor: vectors of f32 lanes, and products of activations and weights.
//!
//! Kernels are written once, over these traits, and compiled once per instruction set. A value of a set's type is the
//! proof that the processor has its instructions: only `detect` makes one.

use bytemuck::Pod;
use half::bf16;

/// Vectors of f32 lanes.
pub(crate) trait Simd: Copy + Send + Sync {
    /// A register.
    type Vector: Copy;
    /// As many f32 in memory.
    type Chunk: Pod;
    /// As many bf16 in memory.
    type HalfChunk: Pod;
    /// How many lanes.
    const LANES: usize;
    /// Whether there are 32 registers rather than 16.
    const MANY_REGISTERS: bool;

    fn splat(self, x: f32) -> Self::Vector;
    fn load(self, from: &Self::Chunk) -> Self::Vector;
    fn widen(self, from: &Self::HalfChunk) -> Self::Vector;
    fn store(self, x: Self::Vector, to: &mut Self::Chunk);
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, fused where the processor can.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The larger one; `b` where either is not a number.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The smaller one; `b` where either is not a number.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The nearest integer, for magnitudes below 2^22.
    fn round(self, x: Self::Vector) -> Self::Vector;
    /// `x * 2^n` for an integral n, where neither x nor the result is subnormal or infinite.
    fn scale_by_power(self, x: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// The sum of the lanes, in one fixed order.
    fn sum(self, x: Self::Vector) -> f32;
    /// The largest lane.
    fn largest(self, x: Self::Vector) -> f32;
}

/// An instruction set: its vectors, and how it multiplies with bf16 weights.
pub(crate) trait Set: Copy + Send + Sync {
    /// Its vectors.
    type Simd: Simd;
    /// How it multiplies with bf16 weights.
    type Bf16: Product<Simd = Self::Simd, Weight = bf16>;

    fn simd(self) -> Self::Simd;
    fn bf16(self) -> Self::Bf16;
}

/// Sums of products of f32 activations with weights, some lanes at a time.
pub(crate) trait Product: Copy {
    type Simd: Simd;
    /// A weight in memory.
    type Weight: Pod;
    /// Activations of one step, in memory and in registers.
    type XChunk: Pod;
    type X: Copy;
    /// Weights of one step, in memory and in registers.
    type WChunk: Pod;
    type W: Copy;

    fn simd(self) -> Self::Simd;
    fn x(self, from: &Self::XChunk) -> Self::X;
    fn w(self, from: &Self::WChunk) -> Self::W;
    fn mul_add(self, x: Self::X, w: Self::W, sum: Vector<Self>) -> Vector<Self>;
}

/// The register of a product's sums.
pub(crate) type Vector<P> = <<P as Product>::Simd as Simd>::Vector;

/// A number format that kernels read.
pub(crate) trait Element: Pod + Send + Sync {
    /// As many numbers in memory as a register has lanes.
    type Chunk<S: Simd>: Pod;
    /// How a set multiplies with it.
    type Product<K: Set>: Product<Simd = K::Simd, Weight = Self>;

    fn load<S: Simd>(simd: S, from: &Self::Chunk<S>) -> S::Vector;
    fn product<K: Set>(set: K) -> Self::Product<K>;
}

impl Element for f32 {
    type Chunk<S: Simd> = S::Chunk;
    type Product<K: Set> = Plain<K::Simd>;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &S::Chunk) -> S::Vector {
        simd.load(from)
    }

    #[inline(always)]
    fn product<K: Set>(set: K) -> Plain<K::Simd> {
        Plain(set.simd())
    }
}

impl Element for bf16 {
    type Chunk<S: Simd> = S::HalfChunk;
    type Product<K: Set> = K::Bf16;

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &S::HalfChunk) -> S::Vector {
        simd.widen(from)
    }

    #[inline(always)]
    fn product<K: Set>(set: K) -> K::Bf16 {
        set.bf16()
    }
}

/// f32 by f32.
#[derive(Clone, Copy)]
pub(crate) struct Plain<S>(S);

impl<S: Simd> Product for Plain<S> {
    type Simd = S;
    type Weight = f32;
    type XChunk = S::Chunk;
    type X = S::Vector;
    type WChunk = S::Chunk;
    type W = S::Vector;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn x(self, from: &S::Chunk) -> S::Vector {
        self.0.load(from)
    }

    #[inline(always)]
    fn w(self, from: &S::Chunk) -> S::Vector {
        self.0.load(from)
    }

    #[inline(always)]
    fn mul_add(self, x: S::Vector, w: S::Vector, sum: S::Vector) -> S::Vector {
        self.0.mul_add(x, w, sum)
    }
}

/// f32 by bf16, which is widened on the way in.
#[derive(Clone, Copy)]
pub(crate) struct Widened<S>(pub(crate) S);

impl<S: Simd> Product for Widened<S> {
    type Simd = S;
    type Weight = bf16;
    type XChunk = S::Chunk;
    type X = S::Vector;
    type WChunk = S::HalfChunk;
    type W = S::Vector;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn x(self, from: &S::Chunk) -> S::Vector {
        self.0.load(from)
    }

    #[inline(always)]
    fn w(self, from: &S::HalfChunk) -> S::Vector {
        self.0.widen(from)
    }

    #[inline(always)]
    fn mul_add(self, x: S::Vector, w: S::Vector, sum: S::Vector) -> S::Vector {
        self.0.mul_add(x, w, sum)
    }
}

/// Views numbers as whole chunks; what is left at the end is [`padded`].
#[inline(always)]
pub(crate) fn chunks<E: Pod, C: Pod>(numbers: &[E]) -> &[C] {
    let per_chunk = size_of::<C>() / size_of::<E>();
    bytemuck::cast_slice(&numbers[..numbers.len() / per_chunk * per_chunk])
}

/// As [`chunks`], to write to.
#[inline(always)]
pub(crate) fn chunks_mut<E: Pod, C: Pod>(numbers: &mut [E]) -> &mut [C] {
    let per_chunk = size_of::<C>() / size_of::<E>();
    let whole = numbers.len() / per_chunk * per_chunk;
    bytemuck::cast_slice_mut(&mut numbers[..whole])
}

/// Returns the numbers after the last whole chunk, followed by zeros; `None` when there are none.
#[inline(always)]
pub(crate) fn padded<E: Pod, C: Pod>(numbers: &[E]) -> Option<C> {
    let per_chunk = size_of::<C>() / size_of::<E>();
    let rest = &numbers[numbers.len() / per_chunk * per_chunk..];
    if rest.is_empty() {
        return None;
    }
    let mut chunk = C::zeroed();
    let bytes: &[u8] = bytemuck::cast_slice(rest);
    bytemuck::bytes_of_mut(&mut chunk)[..bytes.len()].copy_from_slice(bytes);
    Some(chunk)
}

/// Puts the first numbers of a chunk after the last whole chunk of `numbers`: the way back from [`padded`].
#[inline(always)]
pub(crate) fn unpad<C: Pod>(chunk: &C, numbers: &mut [f32]) {
    let per_chunk = size_of::<C>() / size_of::<f32>();
    let start = numbers.len() / per_chunk * per_chunk;
    let rest = &mut numbers[start..];
    let floats: &[f32] = bytemuck::cast_slice(bytemuck::bytes_of(chunk));
    rest.copy_from_slice(&floats[..rest.len()]);
}
