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
    config::{OptimizerConfig, ScheduleConfig, SftOptions},
    learner::{Entropy, LanguageLearner, LanguageModel, LogprobOptions, TokenGradient},
    loss::negative_log_likelihood,
    schedule::Schedule,
    skips::Skips,
};
use crate::data::pack;

/// What one optimizer step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SftStats {
    /// Normalised as the options say; before the step.
    pub loss: f64,
    /// Share of loss tokens that the model thought most probable.
    pub mean_token_accuracy: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Loss tokens.
    pub tokens: usize,
    /// Whether the step was skipped, and how many have been in a row; the norm is then 0.
    pub skips: Skips,
}

impl SftStats {
    /// Returns the metrics under the names that TRL uses.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("mean_token_accuracy", self.mean_token_accuracy),
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("num_tokens", self.tokens as f64),
            ("optimizer/skipped", self.skips.count() as f64),
        ]
    }
}

/// How well a model says what held-out data says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SftEvaluation {
    /// Mean negative log-likelihood of a loss token (nats).
    pub loss: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// Share of loss tokens that the model thought most probable.
    pub mean_token_accuracy: f64,
    /// Loss tokens.
    pub tokens: usize,
}

impl SftEvaluation {
    /// Returns the metrics under the names that TRL uses.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("eval/loss", self.loss),
            ("eval/perplexity", self.perplexity),
            ("eval/mean_token_accuracy", self.mean_token_accuracy),
            ("eval/num_tokens", self.tokens as f64),
        ]
    }
}

/// A policy in supervised fine-tuning.
pub struct Sft<L> {
    policy: L,
    options: SftOptions,
    schedule: Schedule,
    steps: u64,
    skips: Skips,
}

impl<L: LanguageLearner> Sft<L> {
    /// Prepares for `total_steps` optimizer steps.
    ///
    /// # Errors
    /// When an option breaks a rule.
    pub fn new(
        policy: L,
        options: SftOptions,
        optimizer: &OptimizerConfig,
        schedule: &ScheduleConfig,
        total_steps: u64,
    ) -> Result<Self, Error> {
        options.validate()?;
        optimizer.validate()?;
        schedule.validate()?;
        let schedule = Schedule::new(schedule, optimizer.lr, total_steps);
        Ok(Self { policy, options, schedule, steps: 0, skips: Skips::default() })
    }

    /// Takes one optimizer step on a batch; skips it where loss or gradient is not finite.
    ///
    /// # Errors
    /// When no token of the batch is to be learned, or the model cannot compute.
    pub fn step(&mut self, batch: &[MaskedSequence<'_>]) -> Result<SftStats, Error> {
        let plan = self.plan(batch);
        let weights = plan.weights(self.options.loss_normalization, |_| true);
        let tokens = plan.tokens();
        if tokens == 0 {
            return Err(Error::input("the batch's loss tokens", "at least 1", 0));
        }
        let (mut loss, mut hits) = (0.0, 0);
        for micro_batch in plan.micro_batches() {
            let weights = &weights[micro_batch.rows.clone()];
            self.policy.train_logprobs(&micro_batch.packed, &OPTIONS, &mut |out| {
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
        let learning_rate = self.schedule.lr(self.steps);
        let grad_norm = self.policy.step_if_finite(loss, learning_rate)?;
        self.skips.begin();
        self.skips.note(grad_norm);
        self.steps += 1;
        let mean_token_accuracy = hits as f64 / tokens as f64;
        Ok(SftStats {
            loss,
            mean_token_accuracy,
            grad_norm: grad_norm.unwrap_or_default(),
            learning_rate,
            tokens,
            skips: self.skips,
        })
    }

    /// Measures the policy on held-out data. Every token counts alike.
    ///
    /// # Errors
    /// As [`evaluate`].
    pub fn evaluate(&self, sequences: &[MaskedSequence<'_>]) -> Result<SftEvaluation, Error> {
        evaluate(&self.policy, sequences, self.options.micro_batch_tokens)
    }

    /// Returns the policy.
    pub fn policy(&self) -> &L {
        &self.policy
    }

    /// Returns the policy, to restore it from a checkpoint.
    pub fn policy_mut(&mut self) -> &mut L {
        &mut self.policy
    }

    /// Returns the optimizer steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on after so many optimizer steps.
    pub fn resume_at(&mut self, steps: u64) {
        self.steps = steps;
    }

    fn plan(&self, batch: &[MaskedSequence<'_>]) -> Plan {
        let budget = self.options.micro_batch_tokens;
        if !self.options.packing {
            return plan_in_order(batch, budget);
        }
        let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.tokens.len()).collect();
        Plan::assemble(batch, vec![pack(&lengths, budget)])
    }
}

/// Log-probs of the model itself, and whether it would have said the same.
const OPTIONS: LogprobOptions =
    LogprobOptions { temperature: 1.0, entropy: Entropy::Skip, top: true };

fn plan_in_order(batch: &[MaskedSequence<'_>], token_budget: usize) -> Plan {
    Plan::new(batch, &[(0..batch.len()).collect()], token_budget)
}

/// Measures a model on held-out data, in forward passes of at most `token_budget` tokens. Every token counts alike.
///
/// # Errors
/// When there is no token to measure, or the model cannot compute.
pub fn evaluate(
    model: &impl LanguageModel,
    sequences: &[MaskedSequence<'_>],
    token_budget: usize,
) -> Result<SftEvaluation, Error> {
    let plan = plan_in_order(sequences, token_budget);
    let tokens = plan.tokens();
    if tokens == 0 {
        return Err(Error::input("the held-out loss tokens", "at least 1", 0));
    }
    let weights = plan.weights(Normalization::TokenMean, |_| true);
    let (mut loss, mut hits) = (0.0, 0);
    for micro_batch in plan.micro_batches() {
        let out = model.logprobs(&micro_batch.packed, &OPTIONS)?;
        hits += out.top.iter().filter(|&&hit| hit).count();
        let pairs = out.logprobs.iter().zip(&weights[micro_batch.rows.clone()]);
        loss -= pairs.map(|(&lp, &weight)| f64::from(lp) * f64::from(weight)).sum::<f64>();
    }
    let mean_token_accuracy = hits as f64 / tokens as f64;
    Ok(SftEvaluation { loss, perplexity: loss.exp(), mean_token_accuracy, tokens })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::tabular::Bigram;

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
                (sft.policy.table.weights, stats)
            };
            let (whole, stats) = stepped(10_000);
            for budget in [1, 7, 12] {
                let (cut, cut_stats) = stepped(budget);
                assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-9));
                assert!((stats.loss - cut_stats.loss).abs() < 1e-9);
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
        assert!(after.loss < 0.1 && (after.perplexity - after.loss.exp()).abs() < 1e-12);
        assert_eq!(sft.steps(), 50);
    }

    #[test]
    fn packing_takes_fewer_passes_to_the_same_gradient() {
        let data = counting();
        let stepped = |packing| {
            let options = SftOptions { packing, micro_batch_tokens: 7, ..SftOptions::default() };
            let mut sft = trainer(options, 1.0);
            let passes = sft.plan(&borrow(&data)).micro_batches().count();
            sft.step(&borrow(&data)).unwrap();
            (passes, sft.policy.table.weights)
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
        assert_eq!((stats.loss, stats.tokens), (before.loss, before.tokens));
    }

    #[test]
    fn learning_rate_0_leaves_the_weights() {
        let data = counting();
        let mut sft = trainer(SftOptions::default(), 0.0);
        sft.step(&borrow(&data)).unwrap();
        assert_eq!(sft.policy.table.weights, Bigram::new(5).table.weights);
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
        sft.policy.table.weights[0] = f64::NAN;
        let before = sft.policy.table.weights.clone();
        for row in 1..=2 {
            let stats = sft.step(&borrow(&data)).unwrap();
            assert_eq!((stats.skips.count(), stats.skips.longest()), (1, row));
        }
        assert_eq!(sft.policy.table.weights[1..], before[1..]);
        assert_eq!((sft.policy.table.steps, sft.steps()), (0, 2));
        sft.policy.table.weights[0] = 0.0;
        assert_eq!(sft.step(&borrow(&data)).unwrap().skips, Skips::default());
    }
}
