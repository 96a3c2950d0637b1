//! The embedded engine: our scheduler, paged KV cache and sampler over a step-level [`Forward`].

pub mod cpu;
mod generator;
mod kv_cache;
mod sampler;
mod scheduler;
mod sequence;
#[cfg(test)]
pub(in crate::engine) mod testing;
#[cfg(test)]
mod tests;

pub use generator::{Native, Vocabulary};

use super::{Error, RefitMode, RefitReport};
use crate::{model::ModelSpec, rollout::Weights};

/// Names a block of the paged KV cache: `block_size` consecutive positions of one sequence, all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// Which positions' logits a step must return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitsWanted {
    /// None: a chunk in the middle of a prompt.
    None,
    /// The last token's: one row.
    Last,
    /// Every token's: as many rows as tokens.
    All,
}

/// One sequence's part in an engine step.
#[derive(Clone, Copy, Debug)]
pub struct SequenceStep<'a> {
    /// The tokens to compute, one when decoding.
    pub tokens: &'a [u32],
    /// The position of the first of them; the KV of every earlier position is in `blocks`.
    pub start: usize,
    /// The sequence's block table, with room for `start + tokens.len()` positions.
    pub blocks: &'a [BlockId],
    /// Which logits to return.
    pub logits: LogitsWanted,
}

/// The step-level seam: a transformer that computes one batch of sequence parts over a paged KV cache.
///
/// Batch-invariant: the bits of a token's logits depend on the weights and on the tokens before it, not on what else
/// is in the batch, on how the prompt was cut into chunks, or on the number of threads.
pub trait Forward: Send {
    /// Returns what the model looks like.
    fn spec(&self) -> &ModelSpec;

    /// Makes room for `blocks` KV blocks of `block_size` positions; earlier contents are lost.
    ///
    /// # Errors
    /// When there is not enough memory.
    fn allocate_kv(&mut self, blocks: usize, block_size: usize) -> Result<(), Error>;

    /// Copies the KV of one block over another (copy on write).
    fn copy_block(&mut self, from: BlockId, to: BlockId);

    /// Computes one step. `logits` is cleared, then holds the wanted rows of `vocab_size` raw logits in the order of
    /// `sequences`.
    ///
    /// # Errors
    /// When the weights were written to since they were aliased.
    fn step(&mut self, sequences: &[SequenceStep<'_>], logits: &mut Vec<f32>) -> Result<(), Error>;

    /// Returns on how many threads [`Forward::share`] runs.
    fn threads(&self) -> usize {
        1
    }

    /// Calls `task(thread, index)` once for each index below `tasks` on the forward pass's own threads, which are idle
    /// between steps; `thread` is below [`Forward::threads`], and one thread does one task at a time.
    fn share(&mut self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        (0..tasks).for_each(|index| task(0, index));
    }

    /// Puts new weights in place: all or nothing.
    ///
    /// # Errors
    /// Before the commit: the old version goes on serving.
    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error>;

    /// Returns the weights now serving.
    fn weights(&self) -> &Weights;
}
