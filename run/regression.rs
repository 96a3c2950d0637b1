//! Regression over attributes, as a run.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{
    Launch,
    models::Wanted,
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
};
use crate::{
    config::RegressionConfig,
    data::{ATTRIBUTES, RatedSample, rated_attributes},
    trainer::{
        config::RegressionOptions,
        regression::{RatedSequence, RegressionStats},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RegressionOutcome {
    /// The model directory that was written last.
    pub reward_model: PathBuf,
    /// On held-out completions, where there are any.
    pub evaluation: Option<RegressionStats>,
}

/// Trains a reward model to rate completions and writes it into the run directory. Where the configuration does not name
/// the attributes, they are those that the training data rate.
///
/// # Errors
/// As [`super::sft`]; when an attribute is rated by no row, or the model is a reward model with other labels.
pub fn regression(config: &RegressionConfig, launch: Launch<'_>) -> Result<RegressionOutcome> {
    let config = &resolved(config)?;
    let lengths = |samples: &[RatedSample]| samples.iter().map(Length::of_rated).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let (samples, attributes) = (&begun.samples, &config.regression.attributes);
    for (place, name) in attributes.iter().enumerate() {
        ensure!(
            samples.train.iter().any(|sample| sample.ratings[place].is_some()),
            "{}: no row rates {name:?} (regression.attributes)",
            files(config)
        );
    }
    let wanted = Wanted::Attributes(config.seed, attributes);
    let model = offline::learner(config, &begun.base, wanted)?;
    let lessons = Lessons {
        train: samples.train.iter().map(rated).collect(),
        held_out: samples.eval.iter().map(rated).collect(),
    };
    let outcome = offline::train(config, launch, (ready, &begun), model, &lessons)?;
    Ok(RegressionOutcome { reward_model: outcome.written, evaluation: outcome.evaluation })
}

/// Returns a configuration that names the attributes, so that what is written and resumed does.
fn resolved(config: &RegressionConfig) -> Result<RegressionConfig> {
    let mut config = config.clone();
    if config.regression.attributes.is_empty() {
        let attributes = rated_attributes(&config.data).context("cannot tell what is rated")?;
        ensure!(
            !attributes.is_empty(),
            "{}: no row rates any of {}; name other columns in regression.attributes",
            files(&config),
            ATTRIBUTES.join(", ")
        );
        config.rate(attributes);
    }
    Ok(config)
}

fn files(config: &RegressionConfig) -> String {
    let names = config.data.train.iter().map(|file| file.display().to_string());
    names.collect::<Vec<_>>().join(", ")
}

impl Algorithm for RegressionOptions {
    const STAGE: &'static str = "regression";
    const MODEL: &'static str = "reward_model";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(sample: &RatedSequence<'_>) -> usize {
        sample.tokens.len()
    }
}

fn rated(sample: &RatedSample) -> RatedSequence<'_> {
    RatedSequence { tokens: &sample.tokens, ratings: &sample.ratings }
}
