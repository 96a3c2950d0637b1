//! Reward models: from which of two completions is better, to how good one is.
//!
//! ```text
//! for each optimizer step
//!     c, r = scores of the chosen and the rejected completion of each pair
//!     loss = mean over pairs of -ln sigmoid(c - r - margin) + center_coef (c + r)^2
//!     the model follows the gradient
//! ```

use serde::{Deserialize, Serialize};

use super::{
    Error,
    batch::{PackedBatch, micro_batches, pair_micro_batches},
    config::{OptionError, RewardModelOptions},
    learner::{ScoreLearner, ScoreModel},
    loss::bradley_terry,
    offline::{Findings, Objective, OfflineTrainer, Pass},
    stats::{Summary, divisor, mean},
};

/// Two completions of one prompt, the prompt included.
#[derive(Clone, Copy, Debug)]
pub struct PreferencePair<'a> {
    /// The better one.
    pub chosen: &'a [u32],
    /// The worse one.
    pub rejected: &'a [u32],
    /// By how much, where it is known.
    pub margin: Option<f32>,
}

/// How pairs were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RewardModelStats {
    /// Mean loss of a pair.
    pub loss: f64,
    /// Share of pairs whose chosen completion scored higher.
    pub accuracy: f64,
    /// Mean of chosen less rejected.
    pub margin: f64,
    /// Mean score of the chosen ones.
    pub chosen: f64,
    /// Mean score of the rejected ones.
    pub rejected: f64,
    /// Mean score of all.
    pub mean_reward: f64,
    /// Standard deviation of all scores.
    pub std_reward: f64,
}

/// Metrics have the names that TRL uses.
impl Findings for RewardModelStats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("loss", self.loss),
            ("accuracy", self.accuracy),
            ("margin", self.margin),
            ("rewards/chosen", self.chosen),
            ("rewards/rejected", self.rejected),
            ("mean_reward", self.mean_reward),
            ("std_reward", self.std_reward),
        ]
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("eval/loss", self.loss),
            ("eval/accuracy", self.accuracy),
            ("eval/margin", self.margin),
            ("eval/mean_reward", self.mean_reward),
            ("eval/std_reward", self.std_reward),
        ]
    }
}

/// What brings a reward model's scores to mean 0 and variance 1. Bradley-Terry leaves the mean undetermined, and the
/// scale is whatever training made it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardStandardization {
    /// Mean score.
    pub mean: f64,
    /// Standard deviation of scores.
    pub std: f64,
}

impl RewardStandardization {
    /// Takes mean and deviation from an evaluation.
    pub fn of(evaluation: &RewardModelStats) -> Self {
        Self { mean: evaluation.mean_reward, std: evaluation.std_reward }
    }

    /// Returns `(score - mean) / std`; scores that did not vary are not divided.
    pub fn apply(&self, score: f32) -> f32 {
        ((f64::from(score) - self.mean) / divisor(self.std)) as f32
    }
}

/// A reward model in training.
pub type RewardTrainer<L> = OfflineTrainer<L, RewardModelOptions>;

impl<L: ScoreLearner> Objective<L> for RewardModelOptions {
    type Sample<'a> = PreferencePair<'a>;
    type Findings = RewardModelStats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    fn pass(
        &self,
        mut pass: Pass<'_, L>,
        pairs: &[PreferencePair<'_>],
    ) -> Result<RewardModelStats, Error> {
        if pairs.is_empty() {
            return Err(Error::input("preference pairs", "at least 1", 0));
        }
        let mut judged = Judged::default();
        for micro_batch in cut(pairs, self.micro_batch_tokens) {
            pass.scores(&pack(&micro_batch), &mut |scores| {
                judged.take(&micro_batch, scores, self, pairs.len())
            })?;
        }
        Ok(judged.stats())
    }
}

/// Scores sequences, in forward passes of at most `token_budget` tokens. Scores come in the order of the sequences.
///
/// # Errors
/// When the model cannot compute, or has several labels.
pub fn score(
    model: &(impl ScoreModel + ?Sized),
    sequences: &[&[u32]],
    token_budget: usize,
) -> Result<Vec<f32>, Error> {
    rate(model, 1, sequences, token_budget)
}

/// Does what [`score`] does with a model of several labels: `[sequences, labels]`, one sequence after the other.
///
/// # Errors
/// When the model cannot compute, or has another number of labels.
pub fn rate(
    model: &(impl ScoreModel + ?Sized),
    labels: usize,
    sequences: &[&[u32]],
    token_budget: usize,
) -> Result<Vec<f32>, Error> {
    let lengths: Vec<usize> = sequences.iter().map(|tokens| tokens.len()).collect();
    let all: Vec<usize> = (0..sequences.len()).collect();
    let mut scores = vec![0.0; sequences.len() * labels];
    for members in micro_batches(&all, &lengths, token_budget) {
        let mut batch = PackedBatch::default();
        members.iter().for_each(|&i| push(&mut batch, sequences[i]));
        let rated = model.scores(&batch)?;
        check_labels(&rated, members.len(), labels)?;
        for (i, rated) in members.into_iter().zip(rated.chunks_exact(labels)) {
            scores[i * labels..][..labels].copy_from_slice(rated);
        }
    }
    Ok(scores)
}

/// Checks that a model has given so many numbers for each sequence.
pub(super) fn check_labels(scores: &[f32], sequences: usize, labels: usize) -> Result<(), Error> {
    match scores.len() == sequences * labels {
        true => Ok(()),
        false => {
            let what = format!("the scores of {sequences} sequences");
            Err(Error::input(what, "one for each label", scores.len()))
        }
    }
}

/// Cuts pairs into micro-batches; the two halves of a pair stay together.
fn cut<'a>(pairs: &[PreferencePair<'a>], token_budget: usize) -> Vec<Vec<PreferencePair<'a>>> {
    let lengths: Vec<[usize; 2]> =
        pairs.iter().map(|pair| [pair.chosen.len(), pair.rejected.len()]).collect();
    let batches = pair_micro_batches(&lengths, token_budget).into_iter();
    batches.map(|members| members.into_iter().map(|i| pairs[i]).collect()).collect()
}

/// Packs chosen, rejected, chosen, rejected, ...
fn pack(pairs: &[PreferencePair<'_>]) -> PackedBatch {
    let mut batch = PackedBatch::default();
    for pair in pairs {
        push(&mut batch, pair.chosen);
        push(&mut batch, pair.rejected);
    }
    batch
}

/// Adds a sequence of which the last token is scored.
pub(super) fn push(batch: &mut PackedBatch, tokens: &[u32]) {
    batch.push(tokens, &vec![false; tokens.len()]);
}

/// Scores of pairs, and their loss.
#[derive(Default)]
struct Judged {
    loss: f64,
    chosen: Vec<f32>,
    rejected: Vec<f32>,
}

impl Judged {
    /// Takes in a micro-batch's scores, and returns the loss's derivative with respect to each. `of` is the number of
    /// pairs of the whole step.
    fn take(
        &mut self,
        pairs: &[PreferencePair<'_>],
        scores: &[f32],
        options: &RewardModelOptions,
        of: usize,
    ) -> Vec<f32> {
        let mut gradients = Vec::with_capacity(scores.len());
        for (pair, scores) in pairs.iter().zip(scores.chunks_exact(2)) {
            let margin = if options.use_margin { pair.margin.unwrap_or(0.0) } else { 0.0 };
            let (chosen, rejected) = (f64::from(scores[0]), f64::from(scores[1]));
            let term = bradley_terry(chosen, rejected, margin.into(), options.center_coef);
            self.loss += term.loss / of as f64;
            gradients.extend([term.chosen, term.rejected].map(|g| (g / of as f64) as f32));
            self.chosen.push(scores[0]);
            self.rejected.push(scores[1]);
        }
        gradients
    }

    fn stats(&self) -> RewardModelStats {
        let pairs = self.chosen.iter().zip(&self.rejected);
        let right = pairs.filter(|(chosen, rejected)| chosen > rejected).count();
        let all = Summary::of(&[self.chosen.as_slice(), &self.rejected].concat());
        let (chosen, rejected) = (mean(&self.chosen), mean(&self.rejected));
        RewardModelStats {
            loss: self.loss,
            accuracy: right as f64 / self.chosen.len() as f64,
            margin: chosen - rejected,
            chosen,
            rejected,
            mean_reward: all.mean,
            std_reward: all.std,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::{
        config::{OptimizerConfig, ScheduleConfig},
        tabular::{Table, TokenValues},
    };

    /// Completions that end in a higher token are better.
    const PAIRS: [PreferencePair<'static>; 4] = [
        PreferencePair { chosen: &[0, 1, 4], rejected: &[0, 3], margin: Some(1.0) },
        PreferencePair { chosen: &[0, 3], rejected: &[0, 2, 2, 2], margin: None },
        PreferencePair { chosen: &[0, 4], rejected: &[0, 1], margin: Some(3.0) },
        PreferencePair { chosen: &[2], rejected: &[1], margin: None },
    ];

    fn trainer(options: RewardModelOptions, lr: f64) -> RewardTrainer<TokenValues> {
        let optimizer = OptimizerConfig { lr, ..OptimizerConfig::default() };
        let model = TokenValues(Table::of(vec![0.5, 0.2, 0.4, -0.1, 0.3]));
        RewardTrainer::new(model, options, &optimizer, &ScheduleConfig::default(), 100).unwrap()
    }

    #[test]
    fn the_gradient_does_not_depend_on_the_token_budget() {
        let stepped = |micro_batch_tokens| {
            let options =
                RewardModelOptions { micro_batch_tokens, center_coef: 0.1, ..Default::default() };
            let mut rm = trainer(options, 1.0);
            let stats = rm.step(&PAIRS).unwrap();
            (rm.model().0.weights.clone(), stats.found.loss)
        };
        let (whole, loss) = stepped(1000);
        for budget in [1, 6] {
            let (cut, cut_loss) = stepped(budget);
            assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-7));
            assert!((loss - cut_loss).abs() < 1e-9);
        }
    }

    #[test]
    fn a_model_learns_the_order_and_centring_brings_its_scores_to_0() {
        let options = RewardModelOptions { center_coef: 0.01, ..Default::default() };
        let mut rm = trainer(options, 1.0);
        rm.model_mut().0.weights.iter_mut().for_each(|score| *score += 5.0);
        assert_eq!(rm.evaluate(&PAIRS).unwrap().accuracy, 0.75);
        for _ in 0..300 {
            rm.step(&PAIRS).unwrap();
        }
        let stats = rm.evaluate(&PAIRS).unwrap();
        assert_eq!(stats.accuracy, 1.0);
        assert!(stats.mean_reward.abs() < 0.3, "{stats:?}");
        let [_, one, two, three, four] = rm.model().0.weights[..] else { panic!() };
        assert!(one < two && two < three && three < four);
    }

    #[test]
    fn a_margin_counts_only_where_it_is_asked_for() {
        let with = trainer(RewardModelOptions::default(), 1.0).evaluate(&PAIRS[..1]).unwrap();
        let options = RewardModelOptions { use_margin: false, ..Default::default() };
        let without = trainer(options, 1.0).evaluate(&PAIRS[..1]).unwrap();
        // chosen 0.3, rejected -0.1: ln(1 + exp(0.6)) and ln(1 + exp(-0.4))
        assert!((with.loss - 1.037_488).abs() < 1e-5, "{with:?}");
        assert!((without.loss - 0.513_015).abs() < 1e-5, "{without:?}");
        assert!((with.margin - 0.4).abs() < 1e-6);
    }

    #[test]
    fn scores_come_in_the_order_of_the_sequences() {
        let model = TokenValues(Table::of(vec![0.0, 1.0, 2.0, 3.0, 4.0]));
        let sequences: [&[u32]; 4] = [&[0, 1], &[4], &[0, 0, 0, 2], &[1, 1, 3]];
        assert_eq!(score(&model, &sequences, 5).unwrap(), [1.0, 4.0, 2.0, 3.0]);
    }

    #[test]
    fn standardized_scores_have_mean_0_and_variance_1() {
        let evaluation =
            RewardModelStats { mean_reward: 3.0, std_reward: 2.0, ..Default::default() };
        let standardization = RewardStandardization::of(&evaluation);
        assert_eq!([3.0, 5.0, 1.0].map(|score| standardization.apply(score)), [0.0, 1.0, -1.0]);
    }

    #[test]
    fn no_pairs_are_refused() {
        let error = trainer(RewardModelOptions::default(), 1.0).step(&[]).unwrap_err();
        assert_eq!(error.to_string(), "preference pairs must be at least 1, got 0");
    }
}
