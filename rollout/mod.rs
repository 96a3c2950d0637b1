//! The nouns that engine and trainer share, and the queue between them. Imports nothing of ours but the fence.

mod nouns;
mod queue;
mod weights;

pub use nouns::{Prompt, PromptId, PromptTokens, Rollout, StopReason, VersionSpan, WeightVersion};
pub use queue::{
    Consumer, Issuer, Order, Permit, QueueError, QueueOptions, QueueSnapshot, QueueState,
    SnapshotError, Ticket, queue, restore,
};
pub use weights::{CoverageError, Dtype, TensorSpec, WeightTensor, Weights};
