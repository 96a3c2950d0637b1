//! What the queue synchronises with: std's atomics, crossbeam's slots and parker, tokio's `Notify`.
//!
//! Under `cfg(rollforge_loom)` (`ci/loom.sh`) each is a model of the same contract, whose every interleaving and every
//! stale read that the memory model allows is tried. The flag has a name of its own because `loom` means something to
//! tokio too.

#[cfg(rollforge_loom)]
mod model;

#[cfg(not(rollforge_loom))]
mod real {
    pub(in super::super) use std::sync::{
        Arc as CountedArc,
        atomic::{AtomicBool, AtomicU64, fence},
    };

    pub(in super::super) use crossbeam::{
        queue::ArrayQueue,
        sync::{Parker, Unparker},
        utils::{Backoff, CachePadded as Padded},
    };
    pub(in super::super) use tokio::sync::Notify;
}

#[cfg(rollforge_loom)]
pub(super) use model::*;
#[cfg(not(rollforge_loom))]
pub(super) use real::*;
