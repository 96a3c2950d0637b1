//! What a plan rests on beside the configuration: shapes, lengths, and the process as it is.

use std::path::Path;

use anyhow::Result;

use super::{Planned, batch::Length, machine};
use crate::{data::DataConfig, model::ModelSpec, run::model_directory};

/// Bytes of memory that a byte of a data file becomes, about: token ids, masks, and the columns that are kept.
const DATA: u64 = 2;
/// What libtorch sets up on first use, mostly buffers of its matrix library.
const FIRST_USE: u64 = 32 << 20;

/// What is known before a run.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The shape of the model that learns.
    pub(super) policy: ModelSpec,
    /// That of the reference, where it is another.
    pub(super) reference: Option<ModelSpec>,
    /// Those of the reward models.
    pub(super) rewards: Vec<ModelSpec>,
    /// How long the samples are: a prompt each for PPO, chosen and rejected in turn where pairs are learned from.
    pub(super) lengths: Vec<Length>,
    /// What the samples take.
    pub(super) data: u64,
    /// What the process takes without any model.
    pub(super) process: u64,
}

impl Facts {
    /// Reads what is known before a run. Says why, where the lengths of the samples could not be read and each is taken to
    /// be as long as it may be.
    ///
    /// # Errors
    /// One line that names the file: a model's `config.json` cannot be used.
    pub fn of<C: Planned>(config: &C) -> Result<(Self, Option<String>)> {
        let facts = config.facts()?;
        Ok(match config.lengths() {
            Ok(lengths) => (facts.with(lengths), None),
            Err(error) => {
                let why =
                    format!("every sample is taken to be as long as it may be, for {error:#}");
                (facts, Some(why))
            }
        })
    }

    /// Returns the same facts with the lengths of the samples that are there.
    pub(in crate::run) fn with(self, lengths: Vec<Length>) -> Self {
        Self { lengths, ..self }
    }

    /// Reads shapes, and takes every sample to be as long as it may be.
    pub(super) fn assume(model: &Path, data: &DataConfig, samples: usize) -> Result<Self> {
        let policy = shape(model)?;
        let tokens = data.max_tokens.min(policy.max_positions);
        let longest = Length { tokens, rows: tokens.saturating_sub(1) };
        Ok(Self {
            policy,
            reference: None,
            rewards: Vec::new(),
            lengths: vec![longest; samples],
            data: data_bytes(data),
            process: machine::resident().unwrap_or_default() + FIRST_USE,
        })
    }
}

/// Reads the shape of a model from its directory, or from that of a run's latest checkpoint.
pub(super) fn shape(model: &Path) -> Result<ModelSpec> {
    Ok(ModelSpec::open(&model_directory(model))?)
}

fn data_bytes(data: &DataConfig) -> u64 {
    let size = |path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    DATA * data.train.iter().chain(&data.eval).map(size).sum::<u64>()
}
