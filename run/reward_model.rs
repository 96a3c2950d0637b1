//! The loop of reward model training.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    checkpoint,
    invariants::StepInvariants,
    models::{self, STANDARDIZATION, Wanted},
    opening::Opening,
    plan::{self, Length},
    record::Lane,
    samples,
    session::Session,
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
    let mut batches =
        Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut trainer =
        RewardTrainer::new(model, options.clone(), &config.optimizer, &config.schedule, total)?;
    opening.restore(&mut trainer)?;
    let done = opening.done();
    batches.seek(done)?;
    let held_out = if samples.eval.is_empty() { &samples.train } else { &samples.eval };
    let held_out: Vec<_> = held_out.iter().map(pair).collect();
    let mut outcome = RewardModelOutcome {
        reward_model: opening.model("reward_model"),
        evaluation: RewardModelStats::default(),
    };
    if opening.is_over(total, launch.observer) {
        outcome.evaluation = trainer.evaluate(&held_out)?;
        return Ok(outcome);
    }
    let mut session = Session::start(launch, config, opening, ("rm", total))?;
    session.planned(&checked)?;
    session.notes(&samples.reports)?;
    let mut invariants = StepInvariants::new(config.invariants);
    let mut steps = || -> Result<()> {
        for step in done + 1..=total {
            let mut watch = session.begin(step);
            let batch: Vec<_> =
                batches.deal().into_iter().map(|i| pair(&samples.train[i])).collect();
            let tokens = batch.iter().map(|one| one.chosen.len() + one.rejected.len()).sum();
            let stats = trainer.step(&batch)?;
            let mut metrics = Metrics::from_iter(stats.metrics());
            watch.lap(Lane::Train, "update")?;
            metrics.extend(invariants.stepped(
                step,
                (stats.skips, &trainer.model().model),
                &mut session,
            )?);
            let verdict = invariants.verdict();
            let saves = session.saves(step) || verdict.is_err();
            if saves || session.is_due(step, options.eval_every) {
                outcome.evaluation = trainer.evaluate(&held_out)?;
                metrics.extend(Metrics::from_iter(outcome.evaluation.eval_metrics()));
                watch.lap(Lane::Score, "eval")?;
            }
            metrics.extend(watch.metrics(tokens));
            session.report(step, &metrics)?;
            if saves {
                let scale =
                    serde_json::to_string_pretty(&RewardStandardization::of(&outcome.evaluation))?;
                let fill = |dir: &Path| {
                    let files = [(STANDARDIZATION, scale)];
                    models::save(&dir.join("reward_model"), &trainer.model().model, &base, &files)?;
                    checkpoint::save(dir, &trainer)
                };
                outcome.reward_model = session.save(step, fill)?.join("reward_model");
            }
            verdict?;
            session.stop_at(step)?;
        }
        Ok(())
    };
    let ended = steps();
    session.end(ended.map(|()| outcome))
}

fn pair(sample: &PairSample) -> PreferencePair<'_> {
    PreferencePair { chosen: &sample.chosen, rejected: &sample.rejected, margin: sample.margin }
}
