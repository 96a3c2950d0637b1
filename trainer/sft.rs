//! Supervised fine-tuning: the policy learns to say what the data says.
//!
//! ```text
//! for each optimizer step
//!     n    = loss tokens of the whole step
//!     loss = sum over them of -logprob / n
//!     policy follows the gradient
//! ```

use super::{
    Error,
    batch::{MaskedSequence, Normalization, Plan},
    config::{OptionError, SftOptions},
    learner::{Entropy, LanguageLearner, LogprobOptions, TokenGradient},
    loss::negative_log_likelihood,
    offline::{Findings, Objective, OfflineTrainer, Pass},
};
use crate::data::pack;

/// A policy in supervised fine-tuning.
pub type Sft<L> = OfflineTrainer<L, SftOptions>;

/// How well a model says what the data says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SftStats {
    /// Mean negative log-likelihood of a loss token (nats); in an optimizer step normalised as the options say.
    pub loss: f64,
    /// Share of loss tokens that the model thought most probable.
    pub mean_token_accuracy: f64,
    /// Loss tokens.
    pub tokens: usize,
}

impl SftStats {
    /// Returns the exponential of the loss of an evaluation.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

/// Metrics have the names that TRL uses.
impl Findings for SftStats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("mean_token_accuracy", self.mean_token_accuracy),
            ("num_tokens", self.tokens as f64),
        ]
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("eval/loss", self.loss),
            ("eval/perplexity", self.perplexity()),
            ("eval/mean_token_accuracy", self.mean_token_accuracy),
            ("eval/num_tokens", self.tokens as f64),
        ]
    }
}

impl<L: LanguageLearner> Objective<L> for SftOptions {
    type Sample<'a> = MaskedSequence<'a>;
    type Findings = SftStats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    /// In an evaluation every token counts alike, whatever the options say.
    fn pass(
        &self,
        mut pass: Pass<'_, L>,
        samples: &[MaskedSequence<'_>],
    ) -> Result<SftStats, Error> {
        let (plan, normalization, what) = match pass.trains() {
            true => (
                plan(samples, self.packing, self.micro_batch_tokens),
                self.loss_normalization,
                "the batch's loss tokens",
            ),
            false => {
                let plan = plan(samples, false, self.micro_batch_tokens);
                (plan, Normalization::TokenMean, "the held-out loss tokens")
            }
        };
        let (weights, tokens) = (plan.weights(normalization, |_| true), plan.tokens());
        if tokens == 0 {
            return Err(Error::input(what, "at least 1", 0));
        }
        let (mut loss, mut hits) = (0.0, 0);
        for micro_batch in plan.micro_batches() {
            let weights = &weights[micro_batch.rows.clone()];
            pass.logprobs(&micro_batch.packed, &LOGPROBS, &mut |out| {
                hits += out.top.iter().filter(|&&hit| hit).count();
                let mut gradients = TokenGradient::default();
                for (&logprob, &weight) in out.logprobs.iter().zip(weights) {
                    let term = negative_log_likelihood(logprob.into());
                    loss += term.loss * f64::from(weight);
                    gradients.logprobs.push(term.gradient as f32 * weight);
                }
                gradients
            })?;
        }
        Ok(SftStats { loss, mean_token_accuracy: hits as f64 / tokens as f64, tokens })
    }
}

/// Cuts a batch into micro-batches, which are filled with whatever fits best where they are to be packed.
pub(super) fn plan(batch: &[MaskedSequence<'_>], packing: bool, token_budget: usize) -> Plan {
    if !packing {
        return Plan::new(batch, &[(0..batch.len()).collect()], token_budget);
    }
    let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.tokens.len()).collect();
    Plan::assemble(batch, vec![pack(&lengths, token_budget)])
}

/// Log-probs of the model itself, and whether it would have said the same.
const LOGPROBS: LogprobOptions =
    LogprobOptions { temperature: 1.0, entropy: Entropy::Skip, top: true };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::{
        config::{OptimizerConfig, ScheduleConfig},
        skips::Skips,
        tabular::Bigram,
    };

    /// After a prompt of one token, count up by one modulo 5.
    fn counting() -> Vec<(Vec<u32>, Vec<bool>)> {
        let sequence = |start: u32, n: u32| (0..n).map(|i| (start + i) % 5).collect::<Vec<_>>();
        let masked = |tokens: Vec<u32>| {
            let mask = (0..tokens.len()).map(|t| t > 0).collect();
            (tokens, mask)
        };
        (0..10).map(|i| masked(sequence(i, 2 + i % 4))).collect()
    }

    fn borrow(data: &[(Vec<u32>, Vec<bool>)]) -> Vec<MaskedSequence<'_>> {
        data.iter().map(|(tokens, mask)| MaskedSequence { tokens, mask }).collect()
    }

    fn trainer(options: SftOptions, lr: f64) -> Sft<Bigram> {
        let optimizer = OptimizerConfig { lr, ..OptimizerConfig::default() };
        Sft::new(Bigram::new(5), options, &optimizer, &ScheduleConfig::default(), 100).unwrap()
    }

    #[test]
    fn the_gradient_does_not_depend_on_the_token_budget() {
        let data = counting();
        for loss_normalization in [
            Normalization::TokenMean,
            Normalization::SeqMeanTokenMean,
            Normalization::SeqMeanTokenSum,
        ] {
            let stepped = |micro_batch_tokens| {
                let options =
                    SftOptions { micro_batch_tokens, loss_normalization, ..SftOptions::default() };
                let mut sft = trainer(options, 1.0);
                let stats = sft.step(&borrow(&data)).unwrap();
                (sft.model().table.weights.clone(), stats)
            };
            let (whole, stats) = stepped(10_000);
            for budget in [1, 7, 12] {
                let (cut, cut_stats) = stepped(budget);
                assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-9));
                assert!((stats.found.loss - cut_stats.found.loss).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_model_learns_to_count() {
        let data = counting();
        let mut sft = trainer(SftOptions::default(), 5.0);
        let before = sft.evaluate(&borrow(&data)).unwrap();
        for _ in 0..50 {
            sft.step(&borrow(&data)).unwrap();
        }
        let after = sft.evaluate(&borrow(&data)).unwrap();
        assert!(before.mean_token_accuracy < 0.6, "{before:?}");
        assert_eq!(after.mean_token_accuracy, 1.0);
        assert!(after.loss < 0.1 && (after.perplexity() - after.loss.exp()).abs() < 1e-12);
        assert_eq!(sft.steps(), 50);
    }

    #[test]
    fn packing_takes_fewer_passes_to_the_same_gradient() {
        let data = counting();
        let stepped = |packing| {
            let options = SftOptions { packing, micro_batch_tokens: 7, ..SftOptions::default() };
            let passes = plan(&borrow(&data), packing, 7).micro_batches().count();
            let mut sft = trainer(options, 1.0);
            sft.step(&borrow(&data)).unwrap();
            (passes, sft.model().table.weights.clone())
        };
        let ((packed, ours), (similar, theirs)) = (stepped(true), stepped(false));
        assert!(packed < similar, "{packed} passes against {similar}");
        assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-9));
    }

    #[test]
    fn a_steps_loss_is_that_of_the_evaluation_before_it() {
        let data = counting();
        let mut sft = trainer(SftOptions::default(), 1.0);
        let before = sft.evaluate(&borrow(&data)).unwrap();
        let stats = sft.step(&borrow(&data)).unwrap();
        assert_eq!(stats.found, before);
    }

    #[test]
    fn learning_rate_0_leaves_the_weights() {
        let data = counting();
        let mut sft = trainer(SftOptions::default(), 0.0);
        sft.step(&borrow(&data)).unwrap();
        assert_eq!(sft.model().table.weights, Bigram::new(5).table.weights);
    }

    #[test]
    fn a_batch_without_loss_tokens_is_refused() {
        let data = [(vec![1, 2], vec![true, false])];
        let error = trainer(SftOptions::default(), 1.0).step(&borrow(&data)).unwrap_err();
        assert_eq!(error.to_string(), "the batch's loss tokens must be at least 1, got 0");
    }

    #[test]
    fn a_step_whose_loss_is_not_finite_is_skipped_and_counted() {
        let mut sft = trainer(SftOptions::default(), 0.5);
        let data = counting();
        sft.model_mut().table.weights[0] = f64::NAN;
        let before = sft.model().table.weights.clone();
        for row in 1..=2 {
            let stats = sft.step(&borrow(&data)).unwrap();
            assert_eq!((stats.skips.count(), stats.skips.longest()), (1, row));
        }
        assert_eq!(sft.model().table.weights[1..], before[1..]);
        assert_eq!((sft.model().table.steps, sft.steps()), (0, 2));
        sft.model_mut().table.weights[0] = 0.0;
        assert_eq!(sft.step(&borrow(&data)).unwrap().skips, Skips::default());
    }
}
