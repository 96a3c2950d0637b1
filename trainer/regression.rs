//! Regression over attributes: how helpful, correct, coherent, ... a completion is, a number each.
//!
//! ```text
//! for each optimizer step
//!     s_ik = what the model says of attribute k of completion i
//!     loss = sum over ratings r_ik that are there of (s_ik - r_ik)^2 / how many of them are there
//!     the model follows the gradient
//! ```
//!
//! The sum is divided by the ratings of the whole optimizer step (HelpSteer's masked mean squared error; Wang et al., 2023):
//! a rating counts the same whatever else its completion is rated for, and however completions fall into micro-batches.

use std::sync::Arc;

use super::{
    Error,
    batch::{PackedBatch, micro_batches},
    config::{OptionError, RegressionOptions},
    learner::ScoreLearner,
    offline::{Findings, Objective, OfflineTrainer, Pass},
    reward_model::{check_labels, push},
};

/// A completion, its prompt included, with its ratings.
#[derive(Clone, Copy, Debug)]
pub struct RatedSequence<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// What it is rated, attribute by attribute; `None` where nobody has said.
    pub ratings: &'a [Option<f32>],
}

/// How an attribute was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// How many ratings there were, at least 1.
    pub ratings: usize,
    /// Mean squared error.
    pub mse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Pearson's correlation of predictions and ratings; `None` where one of them does not vary.
    pub correlation: Option<f64>,
}

/// How completions were rated.
#[derive(Clone, Debug, PartialEq)]
pub struct RegressionStats {
    /// Mean squared error of all ratings.
    pub loss: f64,
    /// Share of ratings that were not there.
    pub masked: f64,
    /// What the attributes are called.
    pub attributes: Arc<[String]>,
    /// How each of them was predicted; `None` where nobody has rated it.
    pub fits: Vec<Option<Fit>>,
}

impl Findings for RegressionStats {
    fn loss(&self) -> f64 {
        self.loss
    }

    fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("loss", self.loss), ("masked", self.masked)]
    }

    fn eval_metrics(&self) -> Vec<(&'static str, f64)> {
        vec![("eval/loss", self.loss), ("eval/masked", self.masked)]
    }

    fn named_metrics(&self) -> Vec<(String, f64)> {
        let of = |(name, fit): (&String, &Option<Fit>)| {
            let said = |fit: &Fit| {
                let known = [("mse", Some(fit.mse)), ("mae", Some(fit.mae))];
                let all = known.into_iter().chain([("correlation", fit.correlation)]);
                let named =
                    all.filter_map(|(what, value)| Some((format!("{what}/{name}"), value?)));
                named.collect::<Vec<_>>()
            };
            fit.as_ref().map(said).unwrap_or_default()
        };
        self.attributes.iter().zip(&self.fits).flat_map(of).collect()
    }
}

/// A reward model that learns to rate.
pub type RegressionTrainer<L> = OfflineTrainer<L, RegressionOptions>;

impl<L: ScoreLearner> Objective<L> for RegressionOptions {
    type Sample<'a> = RatedSequence<'a>;
    type Findings = RegressionStats;

    fn validate(&self) -> Result<(), OptionError> {
        self.validate()
    }

    fn pass(
        &self,
        mut pass: Pass<'_, L>,
        samples: &[RatedSequence<'_>],
    ) -> Result<RegressionStats, Error> {
        let labels = self.attributes.len();
        if let Some(odd) = samples.iter().find(|sample| sample.ratings.len() != labels) {
            return Err(Error::input("ratings", "one for each attribute", odd.ratings.len()));
        }
        let present = samples.iter().flat_map(|sample| sample.ratings).flatten().count();
        if present == 0 {
            return Err(Error::input("ratings", "at least 1", 0));
        }
        let mut judged = Judged { pairs: vec![Vec::new(); labels], present };
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
        let all: Vec<usize> = (0..samples.len()).collect();
        for members in micro_batches(&all, &lengths, self.micro_batch_tokens) {
            let mut batch = PackedBatch::default();
            members.iter().for_each(|&i| push(&mut batch, samples[i].tokens));
            let mut fits = Ok(());
            pass.scores(&batch, &mut |scores| {
                fits = check_labels(scores, members.len(), labels);
                let ratings = members.iter().flat_map(|&i| samples[i].ratings);
                judged.take(scores, ratings)
            })?;
            fits?;
        }
        Ok(judged.stats(&self.attributes, samples.len()))
    }
}

/// What was said, and what was rated, attribute by attribute.
struct Judged {
    pairs: Vec<Vec<(f64, f64)>>,
    /// How many ratings the whole step has.
    present: usize,
}

impl Judged {
    /// Takes in a micro-batch's scores and ratings, completion by completion, and returns the loss's derivative with
    /// respect to each score: 0 where there is no rating.
    fn take<'r>(
        &mut self,
        scores: &[f32],
        ratings: impl Iterator<Item = &'r Option<f32>>,
    ) -> Vec<f32> {
        let (labels, mut derivatives) = (self.pairs.len(), vec![0.0; scores.len()]);
        for (place, (&score, rating)) in scores.iter().zip(ratings).enumerate() {
            let Some(rating) = *rating else { continue };
            let (score, rating) = (f64::from(score), f64::from(rating));
            self.pairs[place % labels].push((score, rating));
            derivatives[place] = (2.0 * (score - rating) / self.present as f64) as f32;
        }
        derivatives
    }

    fn stats(&self, attributes: &[String], samples: usize) -> RegressionStats {
        let squares = self.pairs.iter().flatten().map(|(score, rating)| (score - rating).powi(2));
        let (wanted, present) = ((samples * self.pairs.len()) as f64, self.present as f64);
        RegressionStats {
            loss: squares.sum::<f64>() / present,
            masked: (wanted - present) / wanted,
            attributes: attributes.into(),
            fits: self.pairs.iter().map(|pairs| Fit::of(pairs)).collect(),
        }
    }
}

impl Fit {
    /// Takes pairs of prediction and rating; `None` where there are none.
    fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let count = pairs.len() as f64;
        let mean = |of: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / count;
        let centre = (mean(&|pair| pair.0), mean(&|pair| pair.1));
        let covariance = mean(&|pair| (pair.0 - centre.0) * (pair.1 - centre.1));
        let variance =
            (mean(&|pair| (pair.0 - centre.0).powi(2)), mean(&|pair| (pair.1 - centre.1).powi(2)));
        (!pairs.is_empty()).then(|| Self {
            ratings: pairs.len(),
            mse: mean(&|pair| (pair.0 - pair.1).powi(2)),
            mae: mean(&|pair| (pair.0 - pair.1).abs()),
            correlation: (variance.0 > 0.0 && variance.1 > 0.0)
                .then(|| (covariance / (variance.0 * variance.1).sqrt()).clamp(-1.0, 1.0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::{
        config::{OptimizerConfig, ScheduleConfig},
        tabular::{Table, TokenRatings},
    };

    const LABELS: usize = 2;

    /// What is said of the last token, `[tokens, labels]`.
    const SAID: [f64; 8] = [0.0, 0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 4.0];
    const ROWS: [RatedSequence<'static>; 4] = [
        RatedSequence { tokens: &[0, 1], ratings: &[Some(3.0), None] },
        RatedSequence { tokens: &[2], ratings: &[Some(3.5), Some(1.0)] },
        RatedSequence { tokens: &[0, 0, 3], ratings: &[None, Some(3.0)] },
        RatedSequence { tokens: &[1, 1, 1, 1], ratings: &[Some(1.0), Some(2.0)] },
    ];

    fn options(micro_batch_tokens: usize) -> RegressionOptions {
        let attributes = vec!["helpfulness".into(), "verbosity".into()];
        RegressionOptions { micro_batch_tokens, attributes, ..RegressionOptions::default() }
    }

    fn trainer(options: RegressionOptions) -> RegressionTrainer<TokenRatings> {
        let optimizer = OptimizerConfig { lr: 0.5, ..OptimizerConfig::default() };
        let model = TokenRatings { table: Table::of(SAID.to_vec()), labels: LABELS };
        RegressionTrainer::new(model, options, &optimizer, &ScheduleConfig::default(), 1000)
            .unwrap()
    }

    #[test]
    fn the_loss_is_that_of_a_table_worked_out_by_hand() {
        // Of the last tokens: 1 -> (1, 2), 2 -> (3, -1), 3 -> (0.5, 4), 1 -> (1, 2). Squared errors:
        //   helpfulness: (1 - 3)^2 = 4, (3 - 3.5)^2 = 0.25, none, (1 - 1)^2 = 0      -> 4.25 of 3
        //   verbosity:   none, (-1 - 1)^2 = 4, (4 - 3)^2 = 1, (2 - 2)^2 = 0          -> 5 of 3
        let stats = trainer(options(1000)).evaluate(&ROWS).unwrap();
        assert!((stats.loss - 9.25 / 6.0).abs() < 1e-9, "{stats:?}");
        assert_eq!(stats.masked, 0.25);
        let [helpfulness, verbosity] = [0, 1].map(|label| stats.fits[label].unwrap());
        assert!((helpfulness.mse - 4.25 / 3.0).abs() < 1e-9 && helpfulness.ratings == 3);
        assert!((helpfulness.mae - 2.5 / 3.0).abs() < 1e-9);
        assert!((verbosity.mse - 5.0 / 3.0).abs() < 1e-9);
        // Said 1, 3, 1 and rated 3, 3.5, 1: covariance 2/3, variances 8/9 and 7/6.
        let expected = (2.0 / 3.0) / (8.0f64 / 9.0 * 7.0 / 6.0).sqrt();
        assert!((helpfulness.correlation.unwrap() - expected).abs() < 1e-9, "{helpfulness:?}");
        let names: Vec<String> = stats.named_metrics().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names[..3], ["mse/helpfulness", "mae/helpfulness", "correlation/helpfulness"]);
    }

    #[test]
    fn a_derivative_is_twice_the_error_by_the_ratings_that_are_there() {
        let mut judged = Judged { pairs: vec![Vec::new(); LABELS], present: 6 };
        let ratings = ROWS[..2].iter().flat_map(|row| row.ratings);
        let derivatives = judged.take(&[1.0, 2.0, 3.0, -1.0], ratings);
        let expected = [2.0 * -2.0 / 6.0, 0.0, 2.0 * -0.5 / 6.0, 2.0 * -2.0 / 6.0];
        assert!(derivatives.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-7));
    }

    #[test]
    fn neither_loss_nor_gradient_depends_on_the_token_budget() {
        let stepped = |budget| {
            let mut regression = trainer(options(budget));
            let stats = regression.step(&ROWS).unwrap();
            (regression.model().table.weights.clone(), stats.found)
        };
        let (whole, stats) = stepped(1000);
        for budget in [1, 4, 6] {
            let (cut, other) = stepped(budget);
            assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-7), "{budget}");
            assert!((other.loss - stats.loss).abs() < 1e-9);
        }
    }

    #[test]
    fn what_is_rated_is_learned_and_what_is_not_stays() {
        let mut regression = trainer(options(1000));
        for _ in 0..400 {
            regression.step(&ROWS).unwrap();
        }
        let learned = &regression.model().table.weights;
        // Token 1 is rated 3 and 1 for helpfulness; token 0 is never last; token 3's helpfulness nobody has rated.
        let expected = [0.0, 0.0, 2.0, 2.0, 3.5, 1.0, 0.5, 3.0];
        assert!(learned.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.01), "{learned:?}");
    }

    #[test]
    fn an_attribute_that_nobody_rates_or_that_does_not_vary_has_no_fit() {
        let rows = [RatedSequence { tokens: &[1], ratings: &[Some(1.0), None] }; 2];
        let stats = trainer(options(1000)).evaluate(&rows).unwrap();
        assert_eq!(stats.fits[0].unwrap().correlation, None);
        assert_eq!((stats.fits[1], stats.masked, stats.loss), (None, 0.5, 0.0));
    }

    #[test]
    fn ratings_that_are_missing_and_models_with_other_labels_are_refused() {
        let refused = |rows: &[RatedSequence<'_>], options: RegressionOptions| {
            trainer(options).evaluate(rows).unwrap_err().to_string()
        };
        let unrated = [RatedSequence { tokens: &[1], ratings: &[None, None] }];
        assert_eq!(refused(&unrated, options(9)), "ratings must be at least 1, got 0");
        let one = [RatedSequence { tokens: &[1], ratings: &[Some(1.0)] }];
        assert_eq!(refused(&one, options(9)), "ratings must be one for each attribute, got 1");
        let only = RegressionOptions { attributes: vec!["a".into()], ..options(9) };
        let said = "the scores of 1 sequences must be one for each label, got 2";
        assert_eq!(refused(&one, only), said);
    }
}
