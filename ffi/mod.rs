//! The fence: with the SIMD kernels, the only place where `unsafe` compiles.
//!
//! Everything here is a leaf. It names nothing of ours and does not know what a rollout is.

pub mod allocator;
#[cfg(all(feature = "libtorch", unix))]
pub mod libtorch_cuda;
pub mod memory;
pub mod team;
#[cfg(feature = "tensorrt-llm")]
pub mod tensorrt_llm;
#[cfg(feature = "libtorch")]
pub mod torch;
#[cfg(feature = "libtorch")]
pub mod torch_matmul;
