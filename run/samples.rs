//! Data files into samples, with a word on every row that could not be used.

use anyhow::Result;

use super::Observer;
use crate::{
    data::{self, DataConfig, Loaded, Sample, TextEncoder},
    model::Model,
};

/// Samples to train on, and those held out.
pub(super) struct Samples<S> {
    pub(super) train: Vec<S>,
    /// Empty where the configuration names no file.
    pub(super) eval: Vec<S>,
}

/// Reads a data section's files, and tells the observer what became of the rows.
///
/// # Errors
/// When a file cannot be used, or no row is left.
pub(super) fn read<S: Sample>(
    config: &DataConfig,
    model: &Model,
    observer: &mut dyn Observer,
) -> Result<Samples<S>> {
    // What the model cannot read would end the run on the way.
    let most = model.spec().max_positions.saturating_sub(S::ROOM).max(1);
    let config = &DataConfig { max_tokens: config.max_tokens.min(most), ..config.clone() };
    let encoder = TextEncoder::new(
        config,
        model.tokenizer()?,
        model.chat_template.as_ref(),
        &model.generation,
    )?;
    let train = data::load_train(config, &encoder)?;
    let eval = data::load_eval(config, &encoder)?;
    let mut tell = |what: &str, loaded: Loaded<S>| {
        observer.note(&format!("{what}: {}", loaded.report));
        loaded.samples
    };
    let train = tell("training data", train);
    let eval = eval.map(|eval| tell("held-out data", eval)).unwrap_or_default();
    Ok(Samples { train, eval })
}
