//! Preference optimisation without rollouts: the policy learns which of two completions is better.
//!
//! ```text
//! once
//!     ref  = log-probs of every completion under the reference
//! for each optimizer step
//!     lp   = log-probs of the chosen and the rejected completion of each pair
//!     loss = mean over pairs of preference_loss(lp, ref) + sft_coef (-lp(chosen) / tokens)
//!     policy follows the gradient
//! ```
//!
//! The losses are in [`super::preference`]; which one it is, is an option. With the reference's log-probs computed over
//! the micro-batches of the first epoch, the first log-ratio is exactly 0, and DPO's first loss exactly ln 2.

use super::{
    Error,
    batch::{MaskedSequence, MicroBatch, Plan},
    config::{DpoOptions, OptionError, PreferenceLoss},
    learner::{LanguageLearner, LanguageModel, LogprobOptions, TokenGradient},
    loss::{PairTerm, Term},
    offline::{Findings, Objective, OfflineTrainer, Pass},
    preference::{dpo, ipo, orpo, robust_dpo, rpo_backward_kl, rpo_forward_kl, rpo_squared},
    referred::Referred,
};

/// Two completions of one prompt, the prompt included; the masks are those of the completions.
#[derive(Clone, Copy, Debug)]
pub struct DpoPair<'a> {
    /// The better one.
    pub chosen: MaskedSequence<'a>,
    /// The worse one.
    pub rejected: MaskedSequence<'a>,
    /// By how much, where it is known.
    pub margin: Option<f32>,
    /// How good the chosen and the rejected one are, where it is known.
    pub rewards: [Option<f32>; 2],
    /// Log-probs of the chosen and the rejected completion under the reference, as [`Referred::refer`] computes them. Losses
    /// without a reference do not look at them.
    pub reference: [f64; 2],
}

/// How pairs were judged. All are means over pairs, but for the last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DpoStats {
    /// The whole loss.
    pub loss: f64,
    /// Negative log-likelihood of a token of the chosen completion (nats).
    pub nll: f64,
    /// Share of pairs whose chosen completion has the larger implicit reward.
    pub accuracy: f64,
    /// Implicit reward of the chosen completion: `beta` times its log-ratio, or without a reference its log-prob.
    pub chosen: f64,
    /// Implicit reward of the rejected completion.
    pub rejected: f64,
    /// Log-prob of the chosen completion (nats): the sum over its tokens.
    pub chosen_logprob: f64,
    /// Log-prob of the rejected completion.
    pub rejected_logprob: f64,
    /// How far the policy has moved from its reference on these completions (nats): mean over completions of the k2
    /// estimate, half the squared log-ratio. `None` without a reference.
    pub kl: Option<f64>,
}

/// Metrics have the names that TRL uses.
impl Findings for DpoStats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![
            ("loss", self.loss),
            ("nll_loss", self.nll),
            ("rewards/accuracies", self.accuracy),
            ("rewards/margins", self.chosen - self.rejected),
            ("rewards/chosen", self.chosen),
            ("rewards/rejected", self.rejected),
            ("logps/chosen", self.chosen_logprob),
            ("logps/rejected", self.rejected_logprob),
        ];
        metrics.extend(self.kl.map(|kl| ("kl", kl)));
        metrics
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![
            ("eval/loss", self.loss),
            ("eval/nll_loss", self.nll),
            ("eval/rewards/accuracies", self.accuracy),
            ("eval/rewards/margins", self.chosen - self.rejected),
            ("eval/rewards/chosen", self.chosen),
            ("eval/rewards/rejected", self.rejected),
            ("eval/logps/chosen", self.chosen_logprob),
            ("eval/logps/rejected", self.rejected_logprob),
        ];
        metrics.extend(self.kl.map(|kl| ("eval/kl", kl)));
        metrics
    }
}

/// A policy that learns from pairs.
pub type Dpo<L> = OfflineTrainer<L, DpoOptions>;

impl<L: LanguageLearner> Objective<L> for DpoOptions {
    type Sample<'a> = DpoPair<'a>;
    type Findings = DpoStats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    fn pass(&self, mut pass: Pass<'_, L>, pairs: &[DpoPair<'_>]) -> Result<DpoStats, Error> {
        if pairs.is_empty() {
            return Err(Error::input("preference pairs", "at least 1", 0));
        }
        let mut judged = Judged::of(pairs, self);
        for micro_batch in plan(pairs, self.micro_batch_tokens).micro_batches() {
            pass.logprobs(&micro_batch.packed, &LOGPROBS, &mut |out| {
                let logprobs = judged.take(micro_batch, &out.logprobs);
                TokenGradient { logprobs, ..TokenGradient::default() }
            })?;
        }
        Ok(judged.mean())
    }
}

impl Referred for DpoPair<'_> {
    fn longest(&self) -> usize {
        self.chosen.tokens.len().max(self.rejected.tokens.len())
    }

    fn refer(
        batch: &mut [Self],
        model: &(impl LanguageModel + ?Sized),
        token_budget: usize,
    ) -> Result<(), Error> {
        for micro_batch in plan(batch, token_budget).micro_batches() {
            let out = model.logprobs(&micro_batch.packed, &LOGPROBS)?;
            for (pair, halves) in halves(micro_batch, &out.logprobs) {
                batch[pair].reference = halves.map(sum);
            }
        }
        Ok(())
    }
}

/// Log-probs of the model itself.
const LOGPROBS: LogprobOptions =
    LogprobOptions { temperature: 1.0, entropy: super::learner::Entropy::Skip, top: false };

fn plan(pairs: &[DpoPair<'_>], token_budget: usize) -> Plan {
    let sequences: Vec<_> = pairs.iter().flat_map(|pair| [pair.chosen, pair.rejected]).collect();
    Plan::of_pairs(&sequences, token_budget)
}

/// Returns the pairs of a micro-batch, by index, with the log-probs of both completions.
fn halves<'a>(micro_batch: &MicroBatch, logprobs: &'a [f32]) -> Vec<(usize, [&'a [f32]; 2])> {
    let mut rest = logprobs;
    let mut take = |rows: usize| rest.split_off(..rows).unwrap_or_default();
    let lengths = micro_batch.packed.selected_lengths();
    let pairs = micro_batch.sequences.iter().step_by(2).map(|sequence| sequence / 2);
    pairs.zip(lengths.as_chunks().0).map(|(pair, lengths)| (pair, lengths.map(&mut take))).collect()
}

fn sum(logprobs: &[f32]) -> f64 {
    logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
}

/// Pairs of one optimizer step or evaluation, and what has been found of them so far.
struct Judged<'a> {
    pairs: &'a [DpoPair<'a>],
    options: &'a DpoOptions,
    /// Sums over pairs.
    total: DpoStats,
    log_ratios_squared: f64,
}

impl<'a> Judged<'a> {
    fn of(pairs: &'a [DpoPair<'a>], options: &'a DpoOptions) -> Self {
        Self { pairs, options, total: DpoStats::default(), log_ratios_squared: 0.0 }
    }

    /// Takes in a micro-batch's log-probs, and returns the loss's derivative with respect to each.
    fn take(&mut self, micro_batch: &MicroBatch, logprobs: &[f32]) -> Vec<f32> {
        let mut gradients = Vec::with_capacity(logprobs.len());
        for (index, halves) in halves(micro_batch, logprobs) {
            let term = self.judge(&self.pairs[index], halves);
            for (half, gradient) in halves.into_iter().zip([term.chosen, term.rejected]) {
                let gradient = (gradient / self.pairs.len() as f64) as f32;
                gradients.resize(gradients.len() + half.len(), gradient);
            }
        }
        gradients
    }

    /// Returns a pair's loss, with its derivatives with respect to the sums of the log-probs.
    fn judge(&mut self, pair: &DpoPair<'_>, halves: [&[f32]; 2]) -> PairTerm {
        let options = self.options;
        let logprobs = halves.map(sum);
        let [chosen_tokens, rejected_tokens] = halves.map(|half| half.len().max(1) as f64);
        let has_reference = options.loss.has_reference();
        let reference = if has_reference { pair.reference } else { [0.0; 2] };
        let log_ratios = [logprobs[0] - reference[0], logprobs[1] - reference[1]];
        let [per_chosen, per_rejected] = match options.averages() {
            true => [1.0 / chosen_tokens, 1.0 / rejected_tokens],
            false => [1.0; 2],
        };
        let [chosen, rejected] = [log_ratios[0] * per_chosen, log_ratios[1] * per_rejected];
        let term = preference(options, pair, chosen, rejected);
        let nll = -logprobs[0] / chosen_tokens;
        let loss = term.loss + options.sft_coef * nll;

        let total = &mut self.total;
        total.loss += loss;
        total.nll += nll;
        total.accuracy += f64::from(u8::from(chosen > rejected));
        total.chosen += options.beta * chosen;
        total.rejected += options.beta * rejected;
        total.chosen_logprob += logprobs[0];
        total.rejected_logprob += logprobs[1];
        self.log_ratios_squared +=
            log_ratios.map(|log_ratio| log_ratio * log_ratio).iter().sum::<f64>();
        PairTerm {
            loss,
            chosen: term.chosen * per_chosen - options.sft_coef / chosen_tokens,
            rejected: term.rejected * per_rejected,
        }
    }

    fn mean(&self) -> DpoStats {
        let (total, of) = (&self.total, self.pairs.len() as f64);
        DpoStats {
            loss: total.loss / of,
            nll: total.nll / of,
            accuracy: total.accuracy / of,
            chosen: total.chosen / of,
            rejected: total.rejected / of,
            chosen_logprob: total.chosen_logprob / of,
            rejected_logprob: total.rejected_logprob / of,
            // Half the mean over two completions a pair.
            kl: self.options.loss.has_reference().then_some(self.log_ratios_squared / (4.0 * of)),
        }
    }
}

/// Returns the loss of a pair, given what its completions' log-probs come to, and its derivatives with respect to these.
fn preference(options: &DpoOptions, pair: &DpoPair<'_>, chosen: f64, rejected: f64) -> PairTerm {
    let (gap, beta, smoothing) = (chosen - rejected, options.beta, options.label_smoothing);
    let margin = if options.use_margin { f64::from(pair.margin.unwrap_or(0.0)) } else { 0.0 };
    let reward_gap = || {
        let known = |reward: Option<f32>, default: f64| reward.map_or(default, f64::from);
        let chosen = known(pair.rewards[0], options.default_chosen_reward);
        let rejected = known(pair.rewards[1], options.default_rejected_reward);
        options.reward_scale * (chosen - rejected)
    };
    let Term { loss, gradient, .. } = match options.loss {
        PreferenceLoss::Dpo => dpo(gap, beta, margin, smoothing),
        PreferenceLoss::Robust => robust_dpo(gap, beta, margin, smoothing),
        PreferenceLoss::Ipo => ipo(gap, beta),
        PreferenceLoss::RpoSq => rpo_squared(gap, beta, reward_gap()),
        PreferenceLoss::RpoFwdKl => rpo_forward_kl(gap, beta, reward_gap()),
        PreferenceLoss::RpoBwdKl => rpo_backward_kl(gap, beta, reward_gap()),
        PreferenceLoss::Simpo => dpo(gap, beta, options.gamma + margin, smoothing),
        PreferenceLoss::Orpo => return orpo(chosen, rejected, beta),
    };
    PairTerm { loss, chosen: gradient, rejected: -gradient }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::{
        config::{OptimizerConfig, ScheduleConfig},
        tabular::Bigram,
    };

    const LOSSES: [PreferenceLoss; 8] = [
        PreferenceLoss::Dpo,
        PreferenceLoss::Robust,
        PreferenceLoss::Ipo,
        PreferenceLoss::RpoSq,
        PreferenceLoss::RpoFwdKl,
        PreferenceLoss::RpoBwdKl,
        PreferenceLoss::Orpo,
        PreferenceLoss::Simpo,
    ];
    const MASK: [bool; 5] = [false, true, true, true, true];

    fn masked(tokens: &'static [u32]) -> MaskedSequence<'static> {
        MaskedSequence { tokens, mask: &MASK[..tokens.len()] }
    }

    /// Of completions of different lengths, the better ones count up.
    fn pairs() -> Vec<DpoPair<'static>> {
        let pair = |chosen, rejected| DpoPair {
            chosen: masked(chosen),
            rejected: masked(rejected),
            margin: Some(0.5),
            rewards: [Some(2.0), None],
            reference: [0.0; 2],
        };
        let mut pairs = vec![
            pair(&[0, 1, 2, 3], &[0, 3]),
            pair(&[1, 2], &[1, 4, 4, 0, 0]),
            pair(&[2, 3, 4], &[2, 1, 0]),
            pair(&[3, 4], &[3, 2]),
        ];
        DpoPair::refer(&mut pairs, &Bigram::new(5), 100).unwrap();
        pairs
    }

    fn trainer(options: DpoOptions, lr: f64) -> Dpo<Bigram> {
        let optimizer = OptimizerConfig { lr, ..OptimizerConfig::default() };
        Dpo::new(Bigram::new(5), options, &optimizer, &ScheduleConfig::default(), 100).unwrap()
    }

    #[test]
    fn the_first_loss_is_exactly_ln_2_and_the_first_log_ratio_0() {
        let stats = trainer(DpoOptions::default(), 1.0).step(&pairs()).unwrap();
        let found = stats.found;
        assert_eq!(found.loss, std::f64::consts::LN_2);
        assert_eq!((found.chosen, found.rejected, found.kl), (0.0, 0.0, Some(0.0)));
        assert!(stats.grad_norm > 0.0);
    }

    #[test]
    fn the_gradient_does_not_depend_on_the_token_budget() {
        for loss in LOSSES {
            let stepped = |micro_batch_tokens| {
                let options =
                    DpoOptions { micro_batch_tokens, loss, sft_coef: 0.2, ..Default::default() };
                let mut dpo = trainer(options, 1.0);
                let stats = dpo.step(&pairs()).unwrap();
                (dpo.model().table.weights.clone(), stats.found.loss)
            };
            let (whole, loss_whole) = stepped(1000);
            for budget in [1, 9] {
                let (cut, loss_cut) = stepped(budget);
                assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-7), "{loss:?}");
                assert!((loss_whole - loss_cut).abs() < 1e-9, "{loss:?}");
            }
        }
    }

    /// The derivative that reaches the weights is that of the loss that is reported, whatever the loss.
    #[test]
    fn the_gradient_in_the_weights_agrees_with_finite_differences() {
        for (loss, average_logprobs) in
            LOSSES.map(|loss| (loss, false)).into_iter().chain(LOSSES.map(|loss| (loss, true)))
        {
            let options =
                DpoOptions { loss, average_logprobs, sft_coef: 0.3, ..Default::default() };
            let moved = |index: usize, by: f64| {
                let mut dpo = trainer(options.clone(), 1.0);
                // Away from the reference, so that no term is at rest.
                (0..25).for_each(|i| dpo.model_mut().table.weights[i] += 0.2 * (i % 3) as f64);
                dpo.model_mut().table.weights[index] += by;
                dpo
            };
            for index in [1, 3, 7, 13, 22] {
                let loss_at = |by: f64| moved(index, by).evaluate(&pairs()).unwrap().loss;
                // Log-probs are f32.
                let h = 1e-2;
                let slope = (loss_at(h) - loss_at(-h)) / (2.0 * h);
                let mut stepped = moved(index, 0.0);
                let before = stepped.model().table.weights[index];
                stepped.step(&pairs()).unwrap();
                let gradient = before - stepped.model().table.weights[index];
                assert!(
                    (gradient - slope).abs() < 2e-3 * slope.abs().max(0.1),
                    "{options:?}: {gradient}, not {slope}"
                );
            }
        }
    }

    #[test]
    fn every_loss_learns_which_is_better() {
        for loss in LOSSES {
            let mut dpo = trainer(DpoOptions { loss, beta: 0.5, ..Default::default() }, 0.5);
            for _ in 0..100 {
                dpo.step(&pairs()).unwrap();
            }
            let stats = dpo.evaluate(&pairs()).unwrap();
            assert!(stats.accuracy == 1.0 && stats.chosen > stats.rejected, "{loss:?}: {stats:?}");
            assert_eq!(stats.kl.is_some(), loss.has_reference());
        }
    }

    #[test]
    fn known_rewards_and_margins_are_those_of_the_rows_where_they_are_asked_for() {
        let loss = |options: DpoOptions| trainer(options, 1.0).evaluate(&pairs()).unwrap().loss;
        // At a gap of 0: the chosen one's 2 is in the row, the rejected one's is the default.
        let options = DpoOptions {
            loss: PreferenceLoss::RpoSq,
            reward_scale: 0.5,
            default_rejected_reward: -1.0,
            ..Default::default()
        };
        assert!((loss(options) - 2.25).abs() < 1e-12);
        // -ln sigmoid(-0.5) = ln(1 + exp(0.5)) = 0.9740770
        let options = DpoOptions { use_margin: true, ..Default::default() };
        assert!((loss(options) - 0.974_077_0).abs() < 1e-6);
    }

    #[test]
    fn a_long_completion_counts_no_more_than_a_short_one_where_log_probs_are_averaged() {
        let of = |average_logprobs| {
            let mut dpo = trainer(DpoOptions { average_logprobs, ..Default::default() }, 0.0);
            (0..25).for_each(|i| dpo.model_mut().table.weights[i] += 0.2 * (i % 3) as f64);
            dpo.evaluate(&pairs()[..1]).unwrap()
        };
        let (mean, sum) = (of(true), of(false));
        assert!((mean.chosen * 3.0 - sum.chosen).abs() < 1e-9, "{mean:?} {sum:?}");
        assert_eq!((mean.rejected, mean.kl), (sum.rejected, sum.kl));
    }

    #[test]
    fn no_pairs_are_refused() {
        let error = trainer(DpoOptions::default(), 1.0).step(&[]).unwrap_err();
        assert_eq!(error.to_string(), "preference pairs must be at least 1, got 0");
    }

    #[test]
    fn a_step_whose_loss_is_not_finite_is_skipped_and_counted() {
        let mut dpo = trainer(DpoOptions::default(), 0.5);
        dpo.model_mut().table.weights[1] = f64::NAN;
        let before = dpo.model().table.weights.clone();
        let stats = dpo.step(&pairs()).unwrap();
        assert_eq!((stats.skips.count(), dpo.steps()), (1, 1));
        assert_eq!(dpo.model().table.weights[2..], before[2..]);
    }
}
