//! Kahneman-Tversky optimisation (Ethayarajh et al., 2024): the policy learns from completions that are each good or bad,
//! not from pairs.
//!
//! ```text
//! once
//!     ref  = log-probs of every completion under the reference, and of every mismatched one
//! for each optimizer step
//!     kl   = max(0, mean over the batch of lp - ref of the mismatched completions)      a constant to the gradient
//!     x    = lp - ref                                                                   sums over a completion's tokens
//!     loss = mean of  w_d (1 - sigmoid(beta (x - kl)))  where it is desirable
//!                     w_u (1 - sigmoid(beta (kl - x)))  where it is not                 equation 8
//!     policy follows the gradient
//! ```
//!
//! A mismatched completion is another prompt's, after this sample's prompt: how far the policy has moved on completions
//! that nobody asked for. Which one it is belongs to the sample, so the estimate does not depend on how samples fall into
//! micro-batches.

use super::{
    Error,
    batch::{MaskedSequence, MicroBatch, Plan},
    config::{KtoLoss, KtoOptions, OptionError},
    learner::{Entropy, LanguageLearner, LanguageModel, LogprobOptions, TokenGradient},
    loss::{Term, sigmoid},
    offline::{Findings, Objective, OfflineTrainer, Pass},
    referred::Referred,
};

/// A policy that learns from labelled completions.
pub type Kto<L> = OfflineTrainer<L, KtoOptions>;

/// A completion with its prompt, and what was thought of it. The masks are those of the completions.
#[derive(Clone, Copy, Debug)]
pub struct KtoSample<'a> {
    /// Prompt and completion.
    pub sequence: MaskedSequence<'a>,
    /// Whether it is good.
    pub desirable: bool,
    /// The same prompt with a completion of another one.
    pub mismatched: MaskedSequence<'a>,
    /// Log-probs of the completion and of the mismatched one under the reference, as [`Referred::refer`] computes them.
    pub reference: [f64; 2],
}

/// How labelled completions were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KtoStats {
    /// The mean loss of a sample.
    pub loss: f64,
    /// The KL from the reference, estimated from the mismatched completions (nats); `None` where the loss has none.
    pub kl: Option<f64>,
    /// Mean implicit reward of the desirable completions, `beta` times the log-ratio; `None` without such.
    pub chosen: Option<f64>,
    /// Mean implicit reward of the undesirable ones.
    pub rejected: Option<f64>,
    /// Mean log-prob of the desirable ones (nats): the sum over a completion's tokens.
    pub chosen_logprob: Option<f64>,
    /// Mean log-prob of the undesirable ones.
    pub rejected_logprob: Option<f64>,
}

/// Metrics have the names that TRL uses.
impl Findings for KtoStats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let margin = self.margin();
        let known = [
            ("kl", self.kl),
            ("rewards/chosen", self.chosen),
            ("rewards/rejected", self.rejected),
            ("rewards/margins", margin),
            ("logps/chosen", self.chosen_logprob),
            ("logps/rejected", self.rejected_logprob),
        ];
        [("loss", self.loss)].into_iter().chain(there(known)).collect()
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        let margin = self.margin();
        let known = [
            ("eval/kl", self.kl),
            ("eval/rewards/chosen", self.chosen),
            ("eval/rewards/rejected", self.rejected),
            ("eval/rewards/margins", margin),
            ("eval/logps/chosen", self.chosen_logprob),
            ("eval/logps/rejected", self.rejected_logprob),
        ];
        [("eval/loss", self.loss)].into_iter().chain(there(known)).collect()
    }
}

impl KtoStats {
    /// Returns by how much the mean implicit reward of desirable completions is above that of undesirable ones.
    pub fn margin(&self) -> Option<f64> {
        Some(self.chosen? - self.rejected?)
    }
}

fn there<const N: usize>(
    metrics: [(&'static str, Option<f64>); N],
) -> impl Iterator<Item = (&'static str, f64)> {
    metrics.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

impl<L: LanguageLearner> Objective<L> for KtoOptions {
    type Sample<'a> = KtoSample<'a>;
    type Findings = KtoStats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    fn pass(&self, mut pass: Pass<'_, L>, samples: &[KtoSample<'_>]) -> Result<KtoStats, Error> {
        if samples.is_empty() {
            return Err(Error::input("labelled completions", "at least 1", 0));
        }
        let kl = match self.loss {
            KtoLoss::Kto => {
                let now = sums(pass.model(), samples, Half::Mismatched, self.micro_batch_tokens)?;
                let moved = now.iter().zip(samples).map(|(now, sample)| now - sample.reference[1]);
                Some((moved.sum::<f64>() / samples.len() as f64).max(0.0))
            }
            KtoLoss::ApoZeroUnpaired => None,
        };
        let mut judged =
            Judged { options: self, samples, kl, loss: 0.0, kinds: [Kind::default(); 2] };
        for micro_batch in plan(samples, Half::Own, self.micro_batch_tokens).micro_batches() {
            pass.logprobs(&micro_batch.packed, &LOGPROBS, &mut |out| {
                let logprobs = judged.take(micro_batch, &out.logprobs);
                TokenGradient { logprobs, ..TokenGradient::default() }
            })?;
        }
        Ok(judged.stats())
    }
}

impl Referred for KtoSample<'_> {
    fn longest(&self) -> usize {
        self.sequence.tokens.len().max(self.mismatched.tokens.len())
    }

    fn refer(
        batch: &mut [Self],
        model: &(impl LanguageModel + ?Sized),
        token_budget: usize,
    ) -> Result<(), Error> {
        for (place, half) in [Half::Own, Half::Mismatched].into_iter().enumerate() {
            let sums = sums(model, batch, half, token_budget)?;
            batch.iter_mut().zip(sums).for_each(|(sample, sum)| sample.reference[place] = sum);
        }
        Ok(())
    }
}

/// Which of a sample's two sequences.
#[derive(Clone, Copy)]
enum Half {
    Own,
    Mismatched,
}

/// Log-probs of the model itself.
const LOGPROBS: LogprobOptions =
    LogprobOptions { temperature: 1.0, entropy: Entropy::Skip, top: false };

fn plan(samples: &[KtoSample<'_>], half: Half, token_budget: usize) -> Plan {
    let sequences: Vec<MaskedSequence<'_>> = samples
        .iter()
        .map(|sample| match half {
            Half::Own => sample.sequence,
            Half::Mismatched => sample.mismatched,
        })
        .collect();
    Plan::new(&sequences, &[(0..samples.len()).collect()], token_budget)
}

/// Returns the log-prob of each sample's completion, or mismatched completion.
fn sums(
    model: &(impl LanguageModel + ?Sized),
    samples: &[KtoSample<'_>],
    half: Half,
    token_budget: usize,
) -> Result<Vec<f64>, Error> {
    let mut sums = vec![0.0; samples.len()];
    for micro_batch in plan(samples, half, token_budget).micro_batches() {
        let out = model.logprobs(&micro_batch.packed, &LOGPROBS)?;
        for (i, rows) in micro_batch.sequence_rows() {
            let start = micro_batch.rows.start;
            sums[i] = sum(&out.logprobs[rows.start - start..rows.end - start]);
        }
    }
    Ok(sums)
}

fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
}

/// Returns the loss of a completion and its derivative with respect to its log-prob; `x` is its log-ratio.
///
/// ```text
/// kto                  w (1 - sigmoid(beta (x - kl))), the sign of (x - kl) turned where it is undesirable
/// apo_zero_unpaired    the same with a kl of 0                    (D'Oosterlinck et al., 2024, as TRL has it)
/// ```
pub fn kto(x: f64, kl: f64, beta: f64, (desirable, weight): (bool, f64)) -> Term {
    let sign = if desirable { 1.0 } else { -1.0 };
    let good = sigmoid(sign * beta * (x - kl));
    Term {
        loss: weight * (1.0 - good),
        gradient: -weight * sign * beta * good * (1.0 - good),
        clipped: false,
    }
}

/// Sums over the completions of one label.
#[derive(Clone, Copy, Default)]
struct Kind {
    count: usize,
    reward: f64,
    logprob: f64,
}

impl Kind {
    fn mean(&self, of: f64) -> Option<f64> {
        (self.count > 0).then(|| of / self.count as f64)
    }
}

/// Samples of one optimizer step or evaluation, and what has been found of them so far.
struct Judged<'a> {
    options: &'a KtoOptions,
    samples: &'a [KtoSample<'a>],
    kl: Option<f64>,
    loss: f64,
    /// Of the undesirable completions, and of the desirable ones.
    kinds: [Kind; 2],
}

impl Judged<'_> {
    /// Takes in a micro-batch's log-probs, and returns the loss's derivative with respect to each.
    fn take(&mut self, micro_batch: &MicroBatch, logprobs: &[f32]) -> Vec<f32> {
        let (options, of) = (self.options, self.samples.len() as f64);
        let mut gradients = Vec::with_capacity(logprobs.len());
        let mut rest = logprobs;
        let lengths = micro_batch.packed.selected_lengths();
        for (&i, length) in micro_batch.sequences.iter().zip(lengths) {
            let own = rest.split_off(..length).unwrap_or_default();
            let (sample, logprob) = (&self.samples[i], sum(own));
            let x = logprob - sample.reference[0];
            let weight = match sample.desirable {
                true => options.desirable_weight,
                false => options.undesirable_weight,
            };
            let term = kto(x, self.kl.unwrap_or(0.0), options.beta, (sample.desirable, weight));
            self.loss += term.loss;
            let kind = &mut self.kinds[usize::from(sample.desirable)];
            kind.count += 1;
            kind.reward += options.beta * x;
            kind.logprob += logprob;
            gradients.resize(gradients.len() + length, (term.gradient / of) as f32);
        }
        gradients
    }

    fn stats(&self) -> KtoStats {
        let [bad, good] = &self.kinds;
        KtoStats {
            loss: self.loss / self.samples.len() as f64,
            kl: self.kl,
            chosen: good.mean(good.reward),
            rejected: bad.mean(bad.reward),
            chosen_logprob: good.mean(good.logprob),
            rejected_logprob: bad.mean(bad.logprob),
        }
    }
}

#[cfg(test)]
mod tests;
