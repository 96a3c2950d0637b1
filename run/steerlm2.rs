//! SteerLM 2.0, as a run.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Launch,
    models::Wanted,
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
};
use crate::{
    config::SteerLm2Config,
    data::ResponsesSample,
    trainer::{
        batch::MaskedSequence,
        config::SteerLm2Options,
        steerlm2::{SteerLm2Stats, SteerResponse},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct SteerLm2Outcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out prompts, where there are any.
    pub evaluation: Option<SteerLm2Stats>,
}

/// Trains a policy on several responses to each prompt, and writes it into the run directory.
///
/// # Errors
/// As [`super::sft`].
pub fn steerlm2(config: &SteerLm2Config, launch: Launch<'_>) -> Result<SteerLm2Outcome> {
    let lengths = |samples: &[ResponsesSample]| samples.iter().map(Length::of_responses).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let policy = offline::learner(config, &begun.base, Wanted::LanguageModel)?;
    let groups = [&begun.samples.train, &begun.samples.eval]
        .map(|samples| samples.iter().map(group).collect::<Vec<_>>());
    let [train, held_out] =
        groups.each_ref().map(|groups| groups.iter().map(Vec::as_slice).collect());
    let lessons = Lessons { train, held_out };
    let outcome = offline::train(config, launch, (ready, &begun), policy, &lessons)?;
    Ok(SteerLm2Outcome { policy: outcome.written, evaluation: outcome.evaluation })
}

impl Algorithm for SteerLm2Options {
    const STAGE: &'static str = "steerlm2";
    const MODEL: &'static str = "policy";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(group: &&[SteerResponse<'_>]) -> usize {
        group.iter().map(|response| response.sequence.tokens.len()).sum()
    }
}

fn group(sample: &ResponsesSample) -> Vec<SteerResponse<'_>> {
    let responses = sample.responses.iter().map(|response| {
        let [log_attributes, log_prior, log_proposal] = response.logprobs;
        let sequence = MaskedSequence { tokens: &response.tokens, mask: &response.loss_mask };
        SteerResponse { sequence, log_attributes, log_prior, log_proposal }
    });
    responses.collect()
}
