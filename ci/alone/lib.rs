//! `rollout::queue`, `ffi::memory` and `ffi::team`, with what they name.
#![allow(dead_code, missing_docs, reason = "only what the tests use is used")]

#[path = "../../ffi/memory.rs"]
mod memory;
#[path = "../../rollout/nouns.rs"]
mod nouns;
#[path = "../../rollout/queue/mod.rs"]
mod queue;
#[path = "../../ffi/team.rs"]
mod team;

pub use nouns::WeightVersion;
