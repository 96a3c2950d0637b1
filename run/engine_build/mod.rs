//! From a model to a TensorRT-LLM engine directory: checkpoint, the user's Python, and a cache of what was built.

mod cache;
#[cfg(test)]
mod tests;
mod toolchain;

pub use cache::{Cache, Claim, Looked};
pub use toolchain::{BuildCall, Python, SCRIPT, Toolchain};
