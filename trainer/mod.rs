//! Supervised fine-tuning, reward models and PPO.

pub mod batch;
#[cfg(feature = "libtorch")]
pub mod torch;
