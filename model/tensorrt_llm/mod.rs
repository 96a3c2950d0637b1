//! A model as TensorRT-LLM names and cuts it: weight map, checkpoint directories, engine directories. Runs nothing.
//!
//! The weight map is one description, read in both directions. [`tensors`] lists what one rank holds, each tensor as
//! [`Piece`]s of Hugging Face tensors; [`Mapped::in_place`] and [`Mapped::gather`] follow it on the way in (a refit, a
//! checkpoint), [`scatter`] on the way back. The facts are those of `tensorrt_llm/models/{llama,qwen}` and
//! `tensorrt_llm/layers` of releases 0.19 to 1.2.

mod checkpoint;
mod engine_dir;
mod error;
mod gather;
mod layout;
mod map;
mod pretrained;
mod scatter;
#[cfg(test)]
mod tests;

pub use checkpoint::{CheckpointOptions, read_checkpoint, write_checkpoint};
pub use engine_dir::{Build, EngineDir, Wanted};
pub use error::Error;
pub use gather::shard;
pub use layout::{EmbeddingSplit, Layout};
pub use map::{Mapped, Piece, tensors};
pub use pretrained::{Pretrained, config_json};
pub use scatter::scatter;
