//! Kahneman-Tversky optimisation, as a run.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{
    Launch,
    offline::{self, Algorithm, Lessons, Passes},
    plan::Length,
    reference::{self, Reference},
};
use crate::{
    config::KtoConfig,
    data::LabeledSample,
    trainer::{
        batch::MaskedSequence,
        config::KtoOptions,
        kto::{KtoSample, KtoStats},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct KtoOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out completions, where there are any.
    pub evaluation: Option<KtoStats>,
}

/// Trains a policy on completions that are each good or bad, and writes it into the run directory. What the reference says
/// of them is computed first, as in [`super::dpo`].
///
/// # Errors
/// As [`super::sft`].
pub fn kto(config: &KtoConfig, launch: Launch<'_>) -> Result<KtoOutcome> {
    let lengths = |samples: &[LabeledSample]| samples.iter().map(Length::of_labeled).collect();
    let (ready, begun) = offline::begin(config, &launch, lengths)?;
    let samples = &begun.samples;
    let data = &config.data;
    for (files, samples) in [(&data.train, &samples.train), (&data.eval, &samples.eval)] {
        let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        ensure!(
            samples.len() != 1,
            "{}: must have at least 2 completions that can be used, one to be mismatched with the other, got 1",
            names.join(", ")
        );
    }
    let most = config.data.max_tokens.min(begun.base.spec().max_positions);
    let others = [&samples.train, &samples.eval].map(|samples| mismatched(samples, most));
    let mut lessons = Lessons {
        train: samples.train.iter().zip(&others[0]).map(sample).collect(),
        held_out: samples.eval.iter().zip(&others[1]).map(sample).collect(),
    };
    let reference = config.model.other_reference().map_or(Reference::Policy, Reference::Other);
    let budget = config.kto.micro_batch_tokens;
    let policy = reference::policy(config, &begun.base, reference, &mut lessons, budget)?;
    let outcome = offline::train(config, launch, (ready, &begun), policy, &lessons)?;
    Ok(KtoOutcome { policy: outcome.written, evaluation: outcome.evaluation })
}

impl Algorithm for KtoOptions {
    const STAGE: &'static str = "kto";
    const MODEL: &'static str = "policy";

    fn passes(&self) -> Passes {
        let Self { epochs, max_steps, batch_size, eval_every, .. } = *self;
        Passes { epochs, max_steps, batch_size, eval_every }
    }

    fn tokens(sample: &KtoSample<'_>) -> usize {
        sample.sequence.tokens.len() + sample.mismatched.tokens.len()
    }
}

/// Puts the completion of the next sample that has another prompt after each sample's prompt, cut where it would be too
/// long.
fn mismatched(samples: &[LabeledSample], most: usize) -> Vec<(Vec<u32>, Vec<bool>)> {
    let prompt = |sample: &LabeledSample| {
        sample.loss_mask.iter().position(|&counts| counts).unwrap_or_default()
    };
    let others = |i: usize| samples[i + 1..].iter().chain(&samples[..i]);
    let put = |(i, own): (usize, &LabeledSample)| {
        let asked = &own.tokens[..prompt(own)];
        let differs = |other: &&LabeledSample| other.tokens[..prompt(other)] != *asked;
        let next = others(i).find(differs).or_else(|| others(i).next()).unwrap_or(own);
        let (start, from) = (asked.len(), prompt(next));
        let end = from + (next.tokens.len() - from).min(most.saturating_sub(start).max(1));
        let tokens = [asked, &next.tokens[from..end]].concat();
        let mask = [&own.loss_mask[..start], &next.loss_mask[from..end]].concat();
        (tokens, mask)
    };
    samples.iter().enumerate().map(put).collect()
}

fn sample<'a>(
    (sample, (tokens, mask)): (&'a LabeledSample, &'a (Vec<u32>, Vec<bool>)),
) -> KtoSample<'a> {
    KtoSample {
        sequence: MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask },
        desirable: sample.desirable,
        mismatched: MaskedSequence { tokens, mask },
        reference: [0.0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatched_completion_follows_the_samples_own_prompt_and_is_cut_to_fit() {
        let sample = |tokens: &[u32], prompt: usize| LabeledSample {
            tokens: tokens.to_vec(),
            loss_mask: (0..tokens.len()).map(|t| t >= prompt).collect(),
            desirable: true,
        };
        let samples =
            [sample(&[1, 2, 3], 2), sample(&[4, 5, 6, 7], 1), sample(&[8, 9, 9, 9, 9], 4)];
        let others = mismatched(&samples, 5);
        let tokens: Vec<&[u32]> = others.iter().map(|(tokens, _)| tokens.as_slice()).collect();
        assert_eq!(tokens, [&[1, 2, 5, 6, 7][..], &[4, 9], &[8, 9, 9, 9, 3]]);
        assert_eq!(others[1].1, [false, true]);
        let tokens: Vec<usize> = mismatched(&samples, 3).iter().map(|(one, _)| one.len()).collect();
        assert_eq!(tokens, [3, 2, 5], "a prompt is never cut, and one token is left to judge");
        let samples = [sample(&[1, 2], 1), sample(&[1, 3], 1), sample(&[4, 5], 1)];
        let others = mismatched(&samples, 5);
        let tokens: Vec<&[u32]> = others.iter().map(|(tokens, _)| tokens.as_slice()).collect();
        assert_eq!(tokens, [[1, 5], [1, 5], [4, 2]], "another answer to the same prompt is none");
    }
}
