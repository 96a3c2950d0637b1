//! Preference optimisation without rollouts, as a run.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Launch,
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
    reference::{self, Reference},
};
use crate::{
    config::DpoConfig,
    data::PairSample,
    trainer::{
        batch::MaskedSequence,
        config::DpoOptions,
        dpo::{DpoPair, DpoStats},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct DpoOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out pairs, where there are any.
    pub evaluation: Option<DpoStats>,
}

/// Trains a policy on preference pairs and writes it into the run directory.
///
/// The reference's log-probs are computed before the first optimizer step, and the reference is then gone. Where it is the
/// policy as it starts, they are computed with the policy's own weights.
///
/// # Errors
/// As [`super::sft`].
pub fn dpo(config: &DpoConfig, launch: Launch<'_>) -> Result<DpoOutcome> {
    let lengths = |samples: &[PairSample]| samples.iter().flat_map(Length::of_pair).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let samples = &begun.samples;
    let mut pairs = Lessons {
        train: samples.train.iter().map(pair).collect(),
        held_out: samples.eval.iter().map(pair).collect(),
    };
    let reference = match config.other_reference() {
        _ if !config.dpo.loss.has_reference() => Reference::None,
        None => Reference::Policy,
        Some(path) => Reference::Other(path),
    };
    let budget = config.dpo.micro_batch_tokens;
    let policy = reference::policy(config, &begun.base, reference, &mut pairs, budget)?;
    let outcome = offline::train(config, launch, (ready, &begun), policy, &pairs)?;
    Ok(DpoOutcome { policy: outcome.written, evaluation: outcome.evaluation })
}

impl Algorithm for DpoOptions {
    const STAGE: &'static str = "dpo";
    const MODEL: &'static str = "policy";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(pair: &DpoPair<'_>) -> usize {
        pair.chosen.tokens.len() + pair.rejected.tokens.len()
    }
}

fn pair(sample: &PairSample) -> DpoPair<'_> {
    DpoPair {
        chosen: MaskedSequence { tokens: &sample.chosen, mask: &sample.chosen_mask },
        rejected: MaskedSequence { tokens: &sample.rejected, mask: &sample.rejected_mask },
        margin: sample.margin,
        rewards: [sample.chosen_reward, sample.rejected_reward],
        reference: [0.0; 2],
    }
}
