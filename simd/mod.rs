//! Vectors of any width: a kernel is written once, compiled for each instruction set, and chosen once at run time.
//!
//! Within one set every result depends only on its own inputs. Between sets results differ in the last bits, because
//! lanes are added in another order and products are fused or not.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod math;
mod portable;
mod rows;
mod vector;

use serde::{Deserialize, Serialize};

pub(crate) use math::exp;
#[cfg(feature = "libtorch")]
pub(crate) use rows::dot;
pub(crate) use rows::{Narrow, RmsNorm, inverse_rms};
pub(crate) use vector::{Element, Product, Set, Simd, chunks, chunks_mut, narrow, padded, unpad};

/// Which instruction set the kernels use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelChoice {
    /// The widest the processor has.
    #[default]
    Auto,
    /// Plain Rust, which judges the others.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL; with bf16 dot products where the processor has them.
    Avx512,
}

/// A kernel with its arguments. `run` must be `#[inline(always)]`, so that it is compiled for each set.
pub(crate) trait Op {
    type Output;

    fn run<K: Set>(self, set: K) -> Self::Output;
}

/// The instruction set that was chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernels {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(avx512::Avx512Bf16),
}

impl Default for Kernels {
    /// The widest the processor has.
    fn default() -> Self {
        Self::select(KernelChoice::Auto).unwrap_or(Self::Portable(portable::Portable))
    }
}

impl Kernels {
    /// Asks the processor; `None` when it lacks what was chosen.
    pub(crate) fn select(choice: KernelChoice) -> Option<Self> {
        match choice {
            KernelChoice::Auto => [KernelChoice::Avx512, KernelChoice::Avx2]
                .into_iter()
                .find_map(Self::select)
                .or(Some(Self::Portable(portable::Portable))),
            KernelChoice::Portable => Some(Self::Portable(portable::Portable)),
            #[cfg(target_arch = "x86_64")]
            KernelChoice::Avx2 => avx2::Avx2::detect().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            KernelChoice::Avx512 => avx512::Avx512Bf16::detect()
                .map(Self::Avx512Bf16)
                .or_else(|| avx512::Avx512::detect().map(Self::Avx512)),
            #[cfg(not(target_arch = "x86_64"))]
            KernelChoice::Avx2 | KernelChoice::Avx512 => None,
        }
    }

    /// Returns the name people know the set by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(_) => "avx512-bf16",
        }
    }

    /// Runs a kernel as compiled for this set.
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self {
            Self::Portable(set) => op.run(set),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(set) => set.run(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(set) => set.run(op),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16(set) => set.run(op),
        }
    }
}
