//! Learning from a data set, one optimizer step at a time: what supervised fine-tuning, reward models and preference
//! optimisation have in common.
//!
//! ```text
//! for each optimizer step
//!     loss = the objective over a batch of samples, micro-batch by micro-batch
//!     the model follows the gradient
//! ```
//!
//! An algorithm is an [`Objective`]; its options are that objective. What a step and an evaluation look at is the same
//! code: an objective goes through samples in a [`Pass`], which either carries derivatives into the gradient or drops
//! them.

use super::{
    Error,
    batch::PackedBatch,
    config::{OptimizerConfig, OptionError, ScheduleConfig},
    learner::{
        LanguageLearner, Learner, LogprobOptions, ScoreLearner, TokenGradient, TokenLogprobs,
    },
    schedule::Schedule,
    skips::Skips,
};

/// What a model `L` is trained to.
pub trait Objective<L> {
    /// What it learns from.
    type Sample<'a>: Copy;

    /// What a batch of samples looked like.
    type Findings: Findings;

    /// Checks every range.
    ///
    /// # Errors
    /// Names the first option out of its range.
    fn validate(&self) -> Result<(), OptionError>;

    /// Goes through a batch of samples once; what each of them weighs does not depend on how they fall into micro-batches.
    ///
    /// # Errors
    /// When there is nothing to learn from, or the model cannot compute.
    fn pass(
        &self,
        pass: Pass<'_, L>,
        samples: &[Self::Sample<'_>],
    ) -> Result<Self::Findings, Error>;
}

/// What a batch of samples looked like, before an optimizer step or without one.
pub trait Findings {
    /// Returns the loss that is minimised.
    fn loss(&self) -> f64;

    /// Returns the metrics of an optimizer step.
    fn metrics(&self) -> Vec<(&'static str, f64)>;

    /// Returns the metrics of an evaluation.
    fn eval_metrics(&self) -> Vec<(&'static str, f64)>;

    /// Returns the metrics of either whose names the data give; those of an evaluation get `eval/` before them. Default:
    /// none.
    fn named_metrics(&self) -> Vec<(String, f64)> {
        Vec::new()
    }
}

/// One way through a batch of samples.
pub enum Pass<'a, L> {
    /// Derivatives add up in the model's gradient.
    Train(&'a mut L),
    /// Nobody wants derivatives.
    Measure(&'a L),
}

impl<L> Pass<'_, L> {
    /// Says whether an optimizer step follows.
    pub fn trains(&self) -> bool {
        matches!(self, Self::Train(_))
    }

    /// Returns the model, to be asked what no derivative is wanted of.
    pub fn model(&self) -> &L {
        match self {
            Self::Train(model) => model,
            Self::Measure(model) => model,
        }
    }
}

impl<L: LanguageLearner> Pass<'_, L> {
    /// Hands the log-probs of a micro-batch to `loss`, which answers with its derivative with respect to each.
    ///
    /// # Errors
    /// When the model cannot compute.
    pub fn logprobs(
        &mut self,
        batch: &PackedBatch,
        options: &LogprobOptions,
        loss: &mut dyn FnMut(&TokenLogprobs) -> TokenGradient,
    ) -> Result<(), Error> {
        match self {
            Self::Train(model) => model.train_logprobs(batch, options, loss),
            Self::Measure(model) => model.logprobs(batch, options).map(|out| drop(loss(&out))),
        }
    }
}

impl<L: ScoreLearner> Pass<'_, L> {
    /// Hands the score of each sequence of a micro-batch to `loss`, which answers with its derivative with respect to
    /// each.
    ///
    /// # Errors
    /// When the model cannot compute.
    pub fn scores(
        &mut self,
        batch: &PackedBatch,
        loss: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    ) -> Result<(), Error> {
        match self {
            Self::Train(model) => model.train_scores(batch, loss),
            Self::Measure(model) => model.scores(batch).map(|scores| drop(loss(&scores))),
        }
    }
}

/// What one optimizer step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Step<F> {
    /// What the batch looked like before it.
    pub found: F,
    /// Norm of the gradient before clipping; 0 where the step was skipped.
    pub grad_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Whether the step was skipped, and how many have been in a row.
    pub skips: Skips,
}

impl<F: Findings> Step<F> {
    /// Returns the metrics.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = self.found.metrics();
        metrics.extend([
            ("grad_norm", self.grad_norm),
            ("learning_rate", self.learning_rate),
            ("optimizer/skipped", self.skips.count() as f64),
        ]);
        metrics
    }
}

/// A model that learns from a data set.
pub struct OfflineTrainer<L, O> {
    model: L,
    objective: O,
    schedule: Schedule,
    steps: u64,
    skips: Skips,
}

impl<L: Learner, O: Objective<L>> OfflineTrainer<L, O> {
    /// Prepares for `total_steps` optimizer steps.
    ///
    /// # Errors
    /// When an option breaks a rule.
    pub fn new(
        model: L,
        objective: O,
        optimizer: &OptimizerConfig,
        schedule: &ScheduleConfig,
        total_steps: u64,
    ) -> Result<Self, Error> {
        objective.validate()?;
        optimizer.validate()?;
        schedule.validate()?;
        let schedule = Schedule::new(schedule, optimizer.lr, total_steps);
        Ok(Self { model, objective, schedule, steps: 0, skips: Skips::default() })
    }

    /// Takes one optimizer step on a batch; skips it where loss or gradient is not finite.
    ///
    /// # Errors
    /// As [`Objective::pass`].
    pub fn step(&mut self, samples: &[O::Sample<'_>]) -> Result<Step<O::Findings>, Error> {
        let found = self.objective.pass(Pass::Train(&mut self.model), samples)?;
        let learning_rate = self.schedule.lr(self.steps);
        let grad_norm = self.model.step_if_finite(found.loss(), learning_rate)?;
        self.skips.begin();
        self.skips.note(grad_norm);
        self.steps += 1;
        let (grad_norm, skips) = (grad_norm.unwrap_or_default(), self.skips);
        Ok(Step { found, grad_norm, learning_rate, skips })
    }

    /// Measures the model on held-out samples.
    ///
    /// # Errors
    /// As [`Objective::pass`].
    pub fn evaluate(&self, samples: &[O::Sample<'_>]) -> Result<O::Findings, Error> {
        self.objective.pass(Pass::Measure(&self.model), samples)
    }
}

impl<L, O> OfflineTrainer<L, O> {
    /// Returns the model.
    pub fn model(&self) -> &L {
        &self.model
    }

    /// Returns the model, to restore it from a checkpoint.
    pub fn model_mut(&mut self) -> &mut L {
        &mut self.model
    }

    /// Returns the optimizer steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Goes on after so many optimizer steps.
    pub fn resume_at(&mut self, steps: u64) {
        self.steps = steps;
    }
}
