//! The engine's inner loops, over [`crate::simd`].

mod attention;
mod gemm;
mod linear;
mod pointwise;
mod roofline;
#[cfg(test)]
mod tests;

pub(crate) use attention::{Attention, AttentionShape, Cached, Scratch, StoreKey};
pub(crate) use linear::{GateUp, Linear, Linears};
pub(crate) use pointwise::Rotate;
pub use roofline::Roofline;
