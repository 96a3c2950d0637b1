//! The loop of reward model training.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{
    Earlier, Launch, Metrics,
    batches::Batches,
    models::{self, STANDARDIZATION, Wanted},
    record::Lane,
    samples,
    session::{self, Session},
};
use crate::{
    config::RewardModelConfig,
    data::PairSample,
    trainer::reward_model::{
        PreferencePair, RewardModelStats, RewardStandardization, RewardTrainer,
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
    session::check(config, launch.earlier)?;
    ensure!(launch.earlier != Earlier::Resume, "only PPO can be resumed yet");
    models::use_threads(config.threads)?;
    let base = models::open(&config.model.path)?;
    let samples = samples::read::<PairSample>(&config.data, &base)?;
    let model =
        models::options(config.device, config.model.dtype, config.model.activation_checkpointing);
    let model = models::learner(&base, Wanted::Score(config.seed), &model, &config.optimizer)?;

    let options = &config.reward_model;
    let mut batches =
        Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut trainer =
        RewardTrainer::new(model, options.clone(), &config.optimizer, &config.schedule, total)?;
    let mut session = Session::start(launch, config, ("rm", total))?;
    session.notes(&samples.reports)?;
    let held_out = if samples.eval.is_empty() { &samples.train } else { &samples.eval };
    let held_out: Vec<_> = held_out.iter().map(pair).collect();
    let mut outcome = RewardModelOutcome {
        reward_model: PathBuf::new(),
        evaluation: RewardModelStats::default(),
    };
    for step in 1..=total {
        let mut watch = session.begin(step);
        let batch: Vec<_> = batches.deal().into_iter().map(|i| pair(&samples.train[i])).collect();
        let mut metrics = Metrics::from_iter(trainer.step(&batch)?.metrics());
        watch.lap(Lane::Train, "update")?;
        if session.is_due(step, options.eval_every) || session.saves(step) {
            outcome.evaluation = trainer.evaluate(&held_out)?;
            metrics.extend(Metrics::from_iter(outcome.evaluation.eval_metrics()));
            watch.lap(Lane::Score, "eval")?;
        }
        metrics.extend(watch.metrics());
        session.report(step, &metrics)?;
        if session.saves(step) {
            let scale =
                serde_json::to_string_pretty(&RewardStandardization::of(&outcome.evaluation))?;
            let write = |dir: &std::path::Path| {
                let files = [(STANDARDIZATION, scale)];
                models::save(&dir.join("reward_model"), &trainer.model().model, &base, &files)
            };
            outcome.reward_model = session.save(step, write)?.join("reward_model");
        }
    }
    session.end(Ok(outcome))
}

fn pair(sample: &PairSample) -> PreferencePair<'_> {
    PreferencePair { chosen: &sample.chosen, rejected: &sample.rejected, margin: sample.margin }
}
