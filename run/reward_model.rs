//! Reward model training, as a run.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    models::{self, STANDARDIZATION, Wanted},
    offline::{self, Course, Offline, Stepped},
    opening::Opening,
    plan::{self, Length},
    samples,
};
use crate::{
    config::RewardModelConfig,
    data::PairSample,
    trainer::{
        reward_model::{PreferencePair, RewardModelStats, RewardStandardization, RewardTrainer},
        torch::{self, LearningModel},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct RewardModelOutcome {
    /// The model directory that was written last.
    pub reward_model: PathBuf,
    /// On held-out pairs, or on the training pairs where none are held out.
    pub evaluation: RewardModelStats,
}

/// Trains a reward model on preference pairs and writes it into the run directory, with the mean and the deviation of
/// its scores.
///
/// # Errors
/// As [`super::sft`].
pub fn reward_model(config: &RewardModelConfig, launch: Launch<'_>) -> Result<RewardModelOutcome> {
    let opening = Opening::new(config, launch.earlier)?;
    models::use_threads(config.threads)?;
    let base = models::open(&config.model.path)?;
    let samples = samples::read::<PairSample>(&config.data, &base)?;
    let lengths = samples.train.iter().flat_map(Length::of_pair).collect();
    let checked = plan::check(config, config.memory, lengths)?;
    let model =
        models::options(config.device, config.model.dtype, config.model.activation_checkpointing);
    let model = models::learner(&base, Wanted::Score(config.seed), &model, &config.optimizer)?;

    let options = &config.reward_model;
    let batches = Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut trainer =
        RewardTrainer::new(model, options.clone(), &config.optimizer, &config.schedule, total)?;
    opening.restore(&mut trainer)?;
    let held_out = if samples.eval.is_empty() { &samples.train } else { &samples.eval };
    let mut judge = Judge {
        trainer,
        pairs: samples.train.iter().map(pair).collect(),
        held_out: held_out.iter().map(pair).collect(),
        evaluation: None,
    };
    let course = Course {
        base: &base,
        batches,
        total,
        eval_every: options.eval_every,
        invariants: config.invariants,
        checked,
        reports: samples.reports,
    };
    let reward_model = offline::train(config, launch, opening, course, &mut judge)?;
    let evaluation = match judge.evaluation {
        Some(evaluation) => evaluation,
        None => judge.trainer.evaluate(&judge.held_out)?,
    };
    Ok(RewardModelOutcome { reward_model, evaluation })
}

/// A reward model with the pairs that it learns from.
struct Judge<'a> {
    trainer: RewardTrainer<LearningModel>,
    pairs: Vec<PreferencePair<'a>>,
    held_out: Vec<PreferencePair<'a>>,
    evaluation: Option<RewardModelStats>,
}

impl Offline for Judge<'_> {
    type Trainer = RewardTrainer<LearningModel>;

    const STAGE: &'static str = "rm";
    const MODEL: &'static str = "reward_model";
    const SAVES_EVALUATION: bool = true;

    fn trainer(&self) -> &Self::Trainer {
        &self.trainer
    }

    fn model(&self) -> &torch::Model {
        &self.trainer.model().model
    }

    fn step(&mut self, samples: &[usize]) -> Result<Stepped> {
        let batch: Vec<_> = samples.iter().map(|&i| self.pairs[i]).collect();
        let stats = self.trainer.step(&batch)?;
        Ok(Stepped {
            metrics: Metrics::from_iter(stats.metrics()),
            skips: stats.skips,
            tokens: batch.iter().map(|one| one.chosen.len() + one.rejected.len()).sum(),
        })
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        let evaluation = self.trainer.evaluate(&self.held_out)?;
        self.evaluation = Some(evaluation);
        Ok(Some(Metrics::from_iter(evaluation.eval_metrics())))
    }

    fn files(&self) -> Result<Vec<(&'static str, String)>> {
        let scale = self.evaluation.as_ref().map(RewardStandardization::of);
        let file = |scale| Ok((STANDARDIZATION, serde_json::to_string_pretty(&scale)?));
        scale.into_iter().map(file).collect()
    }
}

fn pair(sample: &PairSample) -> PreferencePair<'_> {
    PreferencePair { chosen: &sample.chosen, rejected: &sample.rejected, margin: sample.margin }
}
