//! Supervised fine-tuning, reward models, preference optimisation and PPO.
//!
//! The mathematics (advantages, KL, losses, schedules, statistics) is pure functions on slices; `torch` holds the
//! models and the optimizer; an algorithm's file reads like its box in the paper.

pub mod advantage;
pub mod batch;
pub mod config;
pub mod correction;
pub mod distill;
pub mod dpo;
mod error;
pub mod kl;
pub mod kto;
pub mod learner;
pub mod loss;
pub mod offline;
mod phases;
pub mod ppo;
pub mod preference;
pub mod referred;
pub mod regression;
pub mod reward;
pub mod reward_model;
pub mod schedule;
pub mod sft;
pub mod skips;
pub mod stats;
pub mod steerlm2;
#[cfg(test)]
mod tabular;
#[cfg(feature = "libtorch")]
pub mod torch;

pub use error::Error;
pub use phases::Phase;
