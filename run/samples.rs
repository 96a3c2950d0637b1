//! Data files into samples, with a word on every row that could not be used.

use anyhow::Result;

use crate::{
    data::{self, DataConfig, Loaded, Sample, TextEncoder},
    model::Model,
};

/// Samples to train on, and those held out.
pub(super) struct Samples<S> {
    pub(super) train: Vec<S>,
    /// Empty where the configuration names no file.
    pub(super) eval: Vec<S>,
    /// What became of the rows, in a line for each of the two.
    pub(super) reports: Vec<String>,
}

/// Reads a data section's files.
///
/// # Errors
/// When a file cannot be used, or no row is left.
pub(super) fn read<S: Sample>(config: &DataConfig, model: &Model) -> Result<Samples<S>> {
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
    let mut reports = Vec::new();
    let mut keep = |what: &str, loaded: Loaded<S>| {
        reports.push(format!("{what}: {}", loaded.report));
        loaded.samples
    };
    let train = keep("training data", train);
    let eval = eval.map(|eval| keep("held-out data", eval)).unwrap_or_default();
    Ok(Samples { train, eval, reports })
}
