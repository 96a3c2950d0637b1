//! The loop of runs that learn from a data set, one optimizer step at a time: `sft`, `rm`, `dpo` and their kin.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    checkpoint::{self, Resumable},
    invariants::StepInvariants,
    models::{self, Learning, Wanted},
    opening::Opening,
    plan::{self, Checked, Length, Planned},
    record::Lane,
    samples::{self, Samples},
    session::{RunConfig, Session},
};
use crate::{
    config::{Common, OfflineConfig},
    data::Sample,
    model::Model,
    trainer::{
        offline::{Findings, Objective, OfflineTrainer, Step},
        torch::LearningModel,
    },
};

/// An algorithm as a run: its options, which are what the model is trained to.
pub(super) trait Algorithm: Objective<LearningModel> + Clone {
    /// What the run is called.
    const STAGE: &'static str;
    /// What the model that it trains is called in a checkpoint.
    const MODEL: &'static str;
    /// Whether every checkpoint, and whoever asks for the outcome, needs an evaluation.
    const NEEDS_EVALUATION: bool = false;

    fn passes(&self) -> Passes;

    /// Returns the tokens of a sample that go through the model.
    fn tokens(sample: &Self::Sample<'_>) -> usize;

    /// Returns further files of the model directory, by name, given the latest evaluation.
    fn files(_: Option<&Self::Findings>) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }
}

/// How long a run is, and when it measures.
pub(super) struct Passes {
    pub(super) epochs: usize,
    pub(super) max_steps: u64,
    pub(super) batch_size: usize,
    pub(super) eval_every: u64,
}

/// A configuration of such a run.
pub(super) trait Offline: RunConfig + Planned + OfflineConfig<Options: Algorithm> {}

impl<C: RunConfig + Planned + OfflineConfig<Options: Algorithm>> Offline for C {}

/// What the model of a configuration `C` learns from.
pub(super) type SampleOf<'a, C> =
    <<C as OfflineConfig>::Options as Objective<LearningModel>>::Sample<'a>;

/// What is found of it.
pub(super) type FindingsOf<C> =
    <<C as OfflineConfig>::Options as Objective<LearningModel>>::Findings;

/// The model that training begins with, and what it learns from.
pub(super) struct Begun<S> {
    pub(super) base: Model,
    pub(super) samples: Samples<S>,
}

/// A run that may begin.
pub(super) struct Ready {
    opening: Opening,
    checked: Checked,
}

/// Opens what a run needs. What can be refused is refused here, but for the run directory.
///
/// # Errors
/// One line that says what is wrong with an earlier run, the model, the data, or the memory there is.
pub(super) fn begin<C: Offline, S: Sample>(
    config: &C,
    launch: &Launch<'_>,
    lengths: impl Fn(&[S]) -> Vec<Length>,
) -> Result<(Ready, Begun<S>)> {
    let opening = Opening::new(config, launch.earlier)?;
    let common = config.common();
    models::use_threads(common.shared.threads)?;
    let base = models::open(common.shared.model)?;
    let samples = samples::read::<S>(common.shared.data, &base)?;
    let checked = plan::check(config, common.memory, lengths(&samples.train))?;
    Ok((Ready { opening, checked }, Begun { base, samples }))
}

/// Returns how the model is loaded.
pub(super) fn learning(config: &impl OfflineConfig) -> Learning<'_> {
    let Common { shared, device, trained: model, .. } = config.common();
    let (_, lora, ema) = shared.learns;
    Learning { model, device, seed: shared.seed, optimizer: shared.optimizer, lora, ema }
}

/// Loads the model that learns.
///
/// # Errors
/// When its weights cannot be used.
pub(super) fn learner(
    config: &impl OfflineConfig,
    base: &Model,
    wanted: Wanted<'_>,
) -> Result<LearningModel> {
    learning(config).learner(base, wanted)
}

/// What a model learns from, and what it is measured on.
pub(super) struct Lessons<T> {
    pub(super) train: Vec<T>,
    /// Empty where there is nothing to measure on.
    pub(super) held_out: Vec<T>,
}

/// What came of a run.
pub(super) struct Outcome<F> {
    /// The model directory that was written last.
    pub(super) written: PathBuf,
    /// The latest evaluation.
    pub(super) evaluation: Option<F>,
}

/// Goes through the optimizer steps that are left.
///
/// # Errors
/// When the model cannot compute, the disk cannot be written, an invariant is broken, or the run was asked to stop.
pub(super) fn train<C: Offline, S>(
    config: &C,
    launch: Launch<'_>,
    (ready, begun): (Ready, &Begun<S>),
    model: LearningModel,
    lessons: &Lessons<SampleOf<'_, C>>,
) -> Result<Outcome<FindingsOf<C>>> {
    let Ready { opening, checked } = ready;
    let Begun { base, samples } = begun;
    let (options, common) = (config.options(), config.common());
    let Passes { epochs, max_steps, batch_size, eval_every } = options.passes();
    let (seed, data) = (common.shared.seed, common.shared.data);
    let mut batches = Batches::new(data, seed, lessons.train.len(), batch_size);
    let total = batches.total(epochs, max_steps);
    let (optimizer, schedule) = (common.shared.optimizer, common.shared.schedule);
    let mut trainer = OfflineTrainer::new(model, options.clone(), optimizer, schedule, total)?;
    opening.restore(&mut trainer)?;
    let measured = |trainer: &OfflineTrainer<LearningModel, C::Options>| match &lessons.held_out {
        held_out if held_out.is_empty() => Ok(None),
        held_out => trainer.evaluate(held_out).map(Some),
    };
    let needs_evaluation = C::Options::NEEDS_EVALUATION;
    let model_name = C::Options::MODEL;

    let done = opening.done();
    batches.seek(done)?;
    let mut written = opening.model(model_name);
    if opening.is_over(total, launch.observer) {
        let evaluation = if needs_evaluation { measured(&trainer)? } else { None };
        return Ok(Outcome { written, evaluation });
    }
    let mut session = Session::start(launch, config, opening, (C::Options::STAGE, total))?;
    session.planned(&checked)?;
    session.notes(&samples.reports)?;
    let mut invariants = StepInvariants::new(common.invariants);
    let mut evaluation = None;
    let mut steps = || -> Result<()> {
        for step in done + 1..=total {
            if session.is_exhausted(step - 1)? {
                if needs_evaluation && evaluation.is_none() {
                    evaluation = measured(&trainer)?;
                }
                break;
            }
            let mut watch = session.begin(step);
            let batch: Vec<_> = batches.deal().into_iter().map(|i| lessons.train[i]).collect();
            let stepped: Step<_> = trainer.step(&batch)?;
            let mut metrics = Metrics::from_iter(stepped.metrics());
            let named = stepped.found.named_metrics();
            named.into_iter().for_each(|(name, value)| metrics.set(name, value));
            watch.lap(Lane::Train, "update")?;
            let looked_at = (stepped.skips, &trainer.model().model);
            metrics.extend(invariants.stepped(step, looked_at, &mut session)?);
            let verdict = invariants.verdict();
            let saves = session.saves(step) || verdict.is_err();
            let needed = saves && (needs_evaluation || session.keeps_best());
            if (needed || session.is_due(step, eval_every))
                && let Some(found) = measured(&trainer)?
            {
                metrics.extend(Metrics::from_iter(found.eval_metrics()));
                let named = found.named_metrics();
                named
                    .into_iter()
                    .for_each(|(name, value)| metrics.set(format!("eval/{name}"), value));
                evaluation = Some(found);
                watch.lap(Lane::Score, "eval")?;
            }
            metrics.extend(watch.metrics(batch.iter().map(C::Options::tokens).sum()));
            session.report(step, &metrics)?;
            if saves {
                let files = C::Options::files(evaluation.as_ref())?;
                let fill = |dir: &Path| {
                    models::save(dir, &trainer.learners(), base, &files)?;
                    checkpoint::save(dir, &trainer)
                };
                written = session.save(step, fill)?.join(model_name);
            }
            verdict?;
            session.stop_at(step)?;
        }
        Ok(())
    };
    let ended = steps();
    session.end(ended)?;
    Ok(Outcome { written, evaluation })
}
