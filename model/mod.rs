//! Hugging Face model directories in and out. No tensor library: names, shapes and bytes.
//!
//! [`Checkpoint`] opens a directory and checks it, [`write_model`] writes one that transformers loads as it is,
//! [`Tokenizer`] and [`TextStream`] turn text into token ids and back.

mod bpe;
mod chat_template;
mod check;
mod checkpoint;
mod config_json;
mod config_out;
mod convert;
mod error;
mod fields;
mod files;
mod generation_config;
mod init;
mod lora;
mod new_dir;
mod new_model;
mod new_shard;
mod open;
mod shard;
mod spec;
mod strftime;
pub mod tensorrt_llm;
mod tensors;
#[cfg(test)]
mod tests;
mod text_stream;
mod tokenizer;
mod write;

pub use chat_template::{ChatOptions, ChatTemplate, ChatTokens, Message, RenderedChat};
pub use check::SpecProblem;
pub use checkpoint::Checkpoint;
pub use error::Error;
pub use generation_config::GenerationConfig;
pub use init::{Init, random_weights, with_score_head};
pub use lora::{Adapter, Lora, LoraTarget, lora_name, read_adapter, write_adapter};
pub(crate) use new_dir::write_dir;
pub use new_model::{Created, NewModelSpec, new_model};
pub use open::Model;
pub use spec::{Family, Head, ModelSpec, RopeScaling};
pub use tensors::{read_tensors, write_tensors};
pub use text_stream::TextStream;
pub use tokenizer::{Encoded, SpecialTokens, Tokenizer};
pub use write::{Companions, WriteOptions, write_model, write_model_with};
