//! What the kernels ask of a processor: vectors of f32 lanes, and products of activations and weights.
//!
//! Kernels are written once, over these traits, and compiled once per instruction set. A value of a set's type is the
//! proof that the processor has its instructions: only `detect` makes one.

use bytemuck::{Pod, Zeroable};
use half::bf16;

use crate::rollout::Dtype;

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
    /// The sum of each one's lanes, in the order of `sum`.
    #[inline(always)]
    fn sums<const N: usize>(self, x: [Self::Vector; N]) -> [f32; N] {
        let mut sums = [0.0; N];
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = self.sum(x);
        }
        sums
    }
    /// The largest lane.
    fn largest(self, x: Self::Vector) -> f32;
    /// Asks for a line of memory to be brought near; any address will do.
    #[inline(always)]
    fn prefetch(self, _line: *const u8) {}
}

/// An instruction set: its vectors, and how it multiplies bf16 numbers.
pub(crate) trait Set: Copy + Send + Sync {
    /// Its vectors.
    type Simd: Simd;
    /// How it multiplies bf16 numbers.
    type Bf16: Product<Simd = Self::Simd, Number = bf16>;

    fn simd(self) -> Self::Simd;
    fn bf16(self) -> Self::Bf16;
}

/// Sums of products of activations with weights, some lanes at a time.
pub(crate) trait Product: Copy {
    type Simd: Simd;
    /// An activation or a weight in memory.
    type Number: Pod;
    /// As many as one step takes, in memory and in a register.
    type Chunk: Pod;
    type Operand: Copy;

    fn simd(self) -> Self::Simd;
    fn load(self, from: &Self::Chunk) -> Self::Operand;
    /// The first of `from` in every lane: as many as a lane takes.
    fn splat(self, from: &[Self::Number]) -> Self::Operand;
    fn mul_add(self, x: Self::Operand, w: Self::Operand, sum: Vector<Self>) -> Vector<Self>;
}

/// The register of a product's sums.
pub(crate) type Vector<P> = <<P as Product>::Simd as Simd>::Vector;

/// The number format of a model: its weights, its cache, and whatever goes into a product with them.
pub(crate) trait Element: Pod + Default + Send + Sync + std::fmt::Debug {
    const DTYPE: Dtype;
    /// As many numbers in memory as a register has lanes.
    type Chunk<S: Simd>: Pod;
    /// How a set multiplies it.
    type Product<K: Set>: Product<Simd = K::Simd, Number = Self>;

    /// The nearest number, ties to even.
    fn of(x: f32) -> Self;
    fn wide(self) -> f32;
    fn load<S: Simd>(simd: S, from: &Self::Chunk<S>) -> S::Vector;
    fn store<S: Simd>(simd: S, x: S::Vector, to: &mut Self::Chunk<S>);
    fn product<K: Set>(set: K) -> Self::Product<K>;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    type Chunk<S: Simd> = S::Chunk;
    type Product<K: Set> = Plain<K::Simd>;

    #[inline(always)]
    fn of(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &S::Chunk) -> S::Vector {
        simd.load(from)
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, x: S::Vector, to: &mut S::Chunk) {
        simd.store(x, to);
    }

    #[inline(always)]
    fn product<K: Set>(set: K) -> Plain<K::Simd> {
        Plain(set.simd())
    }
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    type Chunk<S: Simd> = S::HalfChunk;
    type Product<K: Set> = K::Bf16;

    /// As `bf16::from_f32`, but for what is not a number, and without its branch.
    #[inline(always)]
    fn of(x: f32) -> bf16 {
        let bits = x.to_bits();
        bf16::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn load<S: Simd>(simd: S, from: &S::HalfChunk) -> S::Vector {
        simd.widen(from)
    }

    #[inline(always)]
    fn store<S: Simd>(simd: S, x: S::Vector, to: &mut S::HalfChunk) {
        let mut wide = S::Chunk::zeroed();
        simd.store(x, &mut wide);
        let to: &mut [bf16] = bytemuck::cast_slice_mut(std::slice::from_mut(to));
        narrow(bytemuck::cast_slice(std::slice::from_ref(&wide)), to);
    }

    #[inline(always)]
    fn product<K: Set>(set: K) -> K::Bf16 {
        set.bf16()
    }
}

/// Writes numbers in another format; both slices are equally long.
#[inline(always)]
pub(crate) fn narrow<E: Element>(from: &[f32], to: &mut [E]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = E::of(*from));
}

/// f32 by f32.
#[derive(Clone, Copy)]
pub(crate) struct Plain<S>(S);

impl<S: Simd> Product for Plain<S> {
    type Simd = S;
    type Number = f32;
    type Chunk = S::Chunk;
    type Operand = S::Vector;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn load(self, from: &S::Chunk) -> S::Vector {
        self.0.load(from)
    }

    #[inline(always)]
    fn splat(self, from: &[f32]) -> S::Vector {
        self.0.splat(from[0])
    }

    #[inline(always)]
    fn mul_add(self, x: S::Vector, w: S::Vector, sum: S::Vector) -> S::Vector {
        self.0.mul_add(x, w, sum)
    }
}

/// bf16 by bf16, which are widened on the way in.
#[derive(Clone, Copy)]
pub(crate) struct Widened<S>(pub(crate) S);

impl<S: Simd> Product for Widened<S> {
    type Simd = S;
    type Number = bf16;
    type Chunk = S::HalfChunk;
    type Operand = S::Vector;

    #[inline(always)]
    fn simd(self) -> S {
        self.0
    }

    #[inline(always)]
    fn load(self, from: &S::HalfChunk) -> S::Vector {
        self.0.widen(from)
    }

    #[inline(always)]
    fn splat(self, from: &[bf16]) -> S::Vector {
        self.0.splat(from[0].wide())
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
pub(crate) fn unpad<E: Pod, C: Pod>(chunk: &C, numbers: &mut [E]) {
    let per_chunk = size_of::<C>() / size_of::<E>();
    let start = numbers.len() / per_chunk * per_chunk;
    let rest = &mut numbers[start..];
    let all: &[E] = bytemuck::cast_slice(std::slice::from_ref(chunk));
    rest.copy_from_slice(&all[..rest.len()]);
}
