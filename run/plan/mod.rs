//! What a run will take in memory, computed before it is started.
//!
//! Pure arithmetic over shapes and options: no weight is read, nothing is allocated. A [`MemoryPlan`] has a [`Phase`] for
//! each thing that a run does, and each phase a [`Ledger`] of who holds how many bytes. `docs/memory.md` has the formulas,
//! and how predicted and measured peaks compare.

mod advice;
mod batch;
mod check;
mod distill;
mod engine;
mod facts;
mod ledger;
mod machine;
mod model;
mod pass;
mod phase;
mod ppo;
mod room;
mod supervised;
#[cfg(test)]
mod tests;

use std::path::Path;

use super::model_directory;
use crate::{
    data::{DataConfig, Sample},
    model::{Model, ModelSpec},
    trainer::config::Device,
};

pub use advice::{Advice, advise};
use batch::Batch;
pub use batch::Length;
pub(super) use check::{Checked, check};
pub use facts::Facts;
pub use ledger::{Ledger, Part};
pub use machine::available;
pub(super) use machine::peak_resident;
use phase::Phases;
pub use phase::{MemoryPlan, Phase};

/// A configuration whose run can be planned.
pub trait Planned: Sized {
    /// Reads what the plan rests on beside the configuration: `config.json` of each model. Every sample is taken to be as
    /// long as it may be.
    ///
    /// # Errors
    /// One line that names the file.
    fn facts(&self) -> anyhow::Result<Facts>;

    /// Reads how long the samples are.
    ///
    /// # Errors
    /// One line that names the file: the model lacks a part, or the data cannot be used.
    fn lengths(&self) -> anyhow::Result<Vec<Length>>;

    /// Computes what the run will take.
    fn plan(&self, facts: &Facts) -> MemoryPlan;

    /// Lists what can be changed for it to take less: first what costs only time.
    fn changes(&self) -> Vec<Change<Self>>;
}

/// The same run with an option set otherwise.
pub struct Change<C> {
    /// The option, as it is written in the file.
    pub(super) text: String,
    pub(super) config: C,
}

impl MemoryPlan {
    fn new(stage: &'static str, device: Device, batch: Batch, phases: Phases) -> Self {
        let micro_batch = [batch.tokens, batch.grid, batch.rows];
        Self { stage, device: device.to_string(), micro_batch, phases: phases.finish() }
    }
}

/// Returns a half, a quarter, ... of a number, as long as that is not below `least`.
fn halves(number: usize, least: usize) -> impl Iterator<Item = usize> {
    let halve = |number: &usize| Some(number / 2);
    std::iter::successors(halve(&number), halve).take_while(move |&part| part >= least.max(1))
}

/// Returns the micro-batch that takes the most. On the host each buffer is as large as any of them needs it. On a GPU it
/// is one of them, about: attention works on the grid, everything else on tokens.
fn widest(batches: impl IntoIterator<Item = Batch>, (device, spec): (Device, &ModelSpec)) -> Batch {
    if device == Device::Cpu {
        return batches.into_iter().fold(Batch::default(), Batch::or);
    }
    let attention = (3 * spec.q_size() + spec.kv_size()) as u64;
    let others = (6 * spec.hidden_size + 4 * spec.intermediate_size) as u64;
    let taken = |batch: &Batch| {
        let layers = batch.grid * attention + batch.tokens * others;
        layers * spec.num_layers as u64 + batch.rows * spec.vocab_size as u64
    };
    batches.into_iter().max_by_key(taken).unwrap_or_default()
}

/// Reads the samples to train on.
fn samples<S: Sample>(model: &Path, data: &DataConfig) -> anyhow::Result<Vec<S>> {
    let model = Model::open(&model_directory(model))?;
    Ok(super::samples::read(data, &model)?.train)
}
