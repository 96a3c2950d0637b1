//! Reward model training, as a run.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{
    Launch,
    models::{STANDARDIZATION, Wanted},
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
};
use crate::{
    config::RewardModelConfig,
    data::PairSample,
    trainer::{
        config::RewardModelOptions,
        reward_model::{PreferencePair, RewardModelStats, RewardStandardization},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RewardModelOutcome {
    /// The model directory that was written last.
    pub reward_model: PathBuf,
    /// On held-out pairs, or on the training pairs where none are held out.
    pub evaluation: RewardModelStats,
}

/// Trains a reward model on preference pairs and writes it into the run directory, with the mean and the deviation of
/// its scores.
///
/// # Errors
/// As [`super::sft`].
pub fn reward_model(config: &RewardModelConfig, launch: Launch<'_>) -> Result<RewardModelOutcome> {
    let lengths = |samples: &[PairSample]| samples.iter().flat_map(Length::of_pair).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let model = offline::learner(config, &begun.base, Wanted::Score(config.seed))?;
    let samples = &begun.samples;
    let held_out = if samples.eval.is_empty() { &samples.train } else { &samples.eval };
    let lessons = Lessons {
        train: samples.train.iter().map(pair).collect(),
        held_out: held_out.iter().map(pair).collect(),
    };
    let outcome = offline::train(config, launch, (ready, &begun), model, &lessons)?;
    let evaluation =
        outcome.evaluation.context("a reward model is evaluated with its last step")?;
    Ok(RewardModelOutcome { reward_model: outcome.written, evaluation })
}

impl Algorithm for RewardModelOptions {
    const STAGE: &'static str = "rm";
    const MODEL: &'static str = "reward_model";
    const NEEDS_EVALUATION: bool = true;

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(pair: &PreferencePair<'_>) -> usize {
        pair.chosen.len() + pair.rejected.len()
    }

    fn files(evaluation: Option<&RewardModelStats>) -> Result<Vec<(&'static str, String)>> {
        let scale = evaluation.map(RewardStandardization::of);
        let file = |scale| Ok((STANDARDIZATION, serde_json::to_string_pretty(&scale)?));
        scale.into_iter().map(file).collect()
    }
}

fn pair(sample: &PairSample) -> PreferencePair<'_> {
    PreferencePair { chosen: &sample.chosen, rejected: &sample.rejected, margin: sample.margin }
}
