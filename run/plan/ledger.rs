//! Who holds how many bytes.

use std::collections::BTreeMap;

use serde::Serialize;

/// What bytes are held for, in the order that people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The program, its libraries and what they set up.
    Process,
    /// Checkpoints that are mapped into memory. The system takes these pages back where it needs room.
    MappedFiles,
    /// Samples, rollouts and what is known of their tokens.
    Data,
    /// Weights of the models that learn and of those that only score.
    Weights,
    /// Gradients, summed over micro-batches.
    Gradients,
    /// AdamW's two moments.
    Optimizer,
    /// What a forward pass computes, and keeps for the backward pass. On the host the room for it stays.
    Activations,
    /// Logits and what is computed of them, likewise.
    Logits,
    /// The engine's KV cache.
    KvCache,
    /// The engine's buffers for one step.
    Engine,
    /// Weights that the engine has of its own.
    Refit,
    /// Copies that are gone again when the phase is over.
    Copies,
    /// What the allocator holds and nobody uses.
    Allocator,
}

impl Part {
    /// Every part, in order.
    pub const ALL: [Self; 13] = [
        Self::Process,
        Self::MappedFiles,
        Self::Data,
        Self::Weights,
        Self::Gradients,
        Self::Optimizer,
        Self::Activations,
        Self::Logits,
        Self::KvCache,
        Self::Engine,
        Self::Refit,
        Self::Copies,
        Self::Allocator,
    ];

    /// Returns its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::MappedFiles => "mapped files",
            Self::Data => "data",
            Self::Weights => "weights",
            Self::Gradients => "gradients",
            Self::Optimizer => "optimizer",
            Self::Activations => "activations",
            Self::Logits => "logits",
            Self::KvCache => "KV cache",
            Self::Engine => "engine",
            Self::Refit => "refit buffers",
            Self::Copies => "copies",
            Self::Allocator => "allocator",
        }
    }
}

/// Bytes by what they are held for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger(BTreeMap<Part, u64>);

impl Ledger {
    /// Enters bytes.
    pub(super) fn add(&mut self, part: Part, bytes: u64) {
        if bytes > 0 {
            let held = self.0.entry(part).or_default();
            *held = held.saturating_add(bytes);
        }
    }

    /// Sees to it that a part has so many bytes.
    pub(super) fn grow(&mut self, part: Part, bytes: u64) {
        self.add(part, bytes.saturating_sub(self.get(part)));
    }

    /// Enters all that another ledger has.
    pub(super) fn add_all(&mut self, other: &Self) {
        other.0.iter().for_each(|(&part, &bytes)| self.add(part, bytes));
    }

    /// Returns the bytes held for a part.
    pub fn get(&self, part: Part) -> u64 {
        self.0.get(&part).copied().unwrap_or_default()
    }

    /// Returns the bytes in all: what a resident set comes to.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// Returns the bytes that the system cannot take back.
    pub fn needed(&self) -> u64 {
        self.total() - self.get(Part::MappedFiles)
    }
}
