//! Supervised fine-tuning, as a run.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Launch,
    models::Wanted,
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
};
use crate::{
    config::SftConfig,
    data::SftSample,
    trainer::{batch::MaskedSequence, config::SftOptions, sft::SftStats},
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct SftOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out data, where there is any.
    pub evaluation: Option<SftStats>,
}

/// Fine-tunes a language model and writes it into the run directory.
///
/// # Errors
/// One line that says what is wrong with configuration, model, data or disk. What can be refused is refused before the
/// run directory is made.
pub fn sft(config: &SftConfig, launch: Launch<'_>) -> Result<SftOutcome> {
    let lengths = |samples: &[SftSample]| samples.iter().map(Length::of_text).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let policy = offline::learner(config, &begun.base, Wanted::LanguageModel)?;
    let lessons = Lessons {
        train: begun.samples.train.iter().map(sequence).collect(),
        held_out: begun.samples.eval.iter().map(sequence).collect(),
    };
    let outcome = offline::train(config, launch, (ready, &begun), policy, &lessons)?;
    Ok(SftOutcome { policy: outcome.written, evaluation: outcome.evaluation })
}

impl Algorithm for SftOptions {
    const STAGE: &'static str = "sft";
    const MODEL: &'static str = "policy";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(sequence: &MaskedSequence<'_>) -> usize {
        sequence.tokens.len()
    }
}

fn sequence(sample: &SftSample) -> MaskedSequence<'_> {
    MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask }
}
