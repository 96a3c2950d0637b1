//! The part of the trainer that computes with libtorch: the only files that name `tch`.
//!
//! A loss is plain arithmetic on slices ([`trainer`](crate::trainer)); what it needs from libtorch is one number per
//! token or per sequence, and a way back. So a training pass is a forward, a closure that turns those numbers into the
//! loss's gradient with respect to them, and a backward:
//!
//! | pass | numbers | closure returns |
//! |------|---------|-----------------|
//! | [`Model::train_logprobs`] | log-prob (entropy, candidates' log-probs) of each selected token | gradient per number |
//! | [`Model::train_values`] | value at each selected row | gradient per row |
//! | [`Model::train_scores`] | score of each sequence | gradient per sequence |
//!
//! On the CPU the passes are our own (`cpu`): of libtorch they use its matrix products. On a GPU they are libtorch's
//! autograd, which also judges ours ([`ModelOptions::autograd`]).
//!
//! Each adds to the model's gradient, so micro-batches accumulate, and [`AdamW::step`] spends it. The same numbers
//! without a gradient: [`Model::logprobs`], [`Model::values`], [`Model::scores`]; and [`Model::top_logprobs`], which others learn from.

mod attention;
mod cpu;
mod ema;
mod error;
mod export;
mod head;
mod layer;
mod layout;
mod learner;
mod learns;
pub mod libtorch;
mod model;
mod optimizer;
mod packed;
mod parameters;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod train;

pub use error::Error;
pub use learner::LearningModel;
pub use learns::Learns;
pub use model::{Model, ModelOptions};
pub use optimizer::{AdamW, AdamWState, StepReport};

pub use super::learner::{Entropy, LogprobOptions, TokenGradient, TokenLogprobs};

/// Does the same in the format that a model computes with, named `$format`.
macro_rules! in_format {
    ($compute:expr, $format:ident => $do:expr) => {
        match $compute {
            tch::Kind::BFloat16 => {
                type $format = half::bf16;
                $do
            }
            _ => {
                type $format = f32;
                $do
            }
        }
    };
}
use in_format;

type Result<T> = std::result::Result<T, Error>;

/// How long a write of the weights waits for their readers: an engine step takes far less.
const WRITE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);
