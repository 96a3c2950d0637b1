//! Generation and training for reinforcement learning from human feedback, in one process.
//!
//! ```text
//! prompts -> engine.generate -> score (reward, reference, value) -> queue -> trainer.update -> refit -> engine ...
//! ```
//!
//! The modules, in the order the data meets them:
//!
//! | module | what it holds |
//! |--------|---------------|
//! | [`config`] | TOML into typed, validated structs |
//! | [`data`] | JSON Lines and Parquet rows into prompts, completions and preference pairs |
//! | [`model`] | Hugging Face model directories in and out |
//! | [`rollout`] | the nouns both sides share, the queue between them, [`rollout::Weights`] |
//! | [`simd`] | vectors of any width, for the kernels of engine and trainer |
//! | [`engine`] | generation: the embedded engine API |
//! | [`trainer`] | supervised fine-tuning, reward models, PPO |
//! | [`run`] | the loops: the only place that sees engine and trainer together |
//! | [`cli`] | the command line |

pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
#[allow(unsafe_code)]
pub mod ffi;
pub mod model;
pub mod rollout;
pub mod run;
#[allow(unsafe_code)]
pub mod simd;
pub mod trainer;
