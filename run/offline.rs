//! The loop of runs that learn from a data set, one optimizer step at a time: `sft`, `rm`, `dpo`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    checkpoint::{self, Resumable},
    invariants::StepInvariants,
    models,
    opening::Opening,
    plan::Checked,
    record::Lane,
    session::{RunConfig, Session},
};
use crate::{
    config::FiniteConfig,
    model::Model,
    trainer::{skips::Skips, torch},
};

/// What one optimizer step did.
pub(super) struct Stepped {
    pub(super) metrics: Metrics,
    pub(super) skips: Skips,
    /// Tokens that went through the model.
    pub(super) tokens: usize,
}

/// An algorithm with the samples that it learns from.
pub(super) trait Offline {
    type Trainer: Resumable;

    /// What the run is called.
    const STAGE: &'static str;
    /// What the model that it trains is called in a checkpoint.
    const MODEL: &'static str;
    /// Whether every checkpoint holds something of an evaluation.
    const SAVES_EVALUATION: bool = false;

    fn trainer(&self) -> &Self::Trainer;
    fn model(&self) -> &torch::Model;

    /// Takes an optimizer step on samples, given by index.
    fn step(&mut self, samples: &[usize]) -> Result<Stepped>;

    /// Measures the model, where there is something to measure it on.
    fn evaluate(&mut self) -> Result<Option<Metrics>>;

    /// Returns further files of the model directory, by name.
    fn files(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }
}

/// What a run is made of beside the algorithm.
pub(super) struct Course<'a> {
    /// The model that training began with.
    pub(super) base: &'a Model,
    pub(super) batches: Batches,
    /// Optimizer steps of the whole run.
    pub(super) total: u64,
    pub(super) eval_every: u64,
    pub(super) invariants: FiniteConfig,
    pub(super) checked: Checked,
    /// What became of the rows of the data.
    pub(super) reports: Vec<String>,
}

/// Goes through the optimizer steps that are left, and returns the model directory that was written last. Everything that
/// can be refused has been by now, but for the run directory.
///
/// # Errors
/// When the model cannot compute, the disk cannot be written, an invariant is broken, or the run was asked to stop.
pub(super) fn train<A: Offline>(
    config: &impl RunConfig,
    launch: Launch<'_>,
    opening: Opening,
    mut course: Course<'_>,
    algorithm: &mut A,
) -> Result<PathBuf> {
    let done = opening.done();
    course.batches.seek(done)?;
    let mut written = opening.model(A::MODEL);
    if opening.is_over(course.total, launch.observer) {
        return Ok(written);
    }
    let mut session = Session::start(launch, config, opening, (A::STAGE, course.total))?;
    session.planned(&course.checked)?;
    session.notes(&course.reports)?;
    let mut invariants = StepInvariants::new(course.invariants);
    let mut steps = || -> Result<()> {
        for step in done + 1..=course.total {
            let mut watch = session.begin(step);
            let stepped = algorithm.step(&course.batches.deal())?;
            let mut metrics = stepped.metrics;
            watch.lap(Lane::Train, "update")?;
            let looked_at = (stepped.skips, algorithm.model());
            metrics.extend(invariants.stepped(step, looked_at, &mut session)?);
            let verdict = invariants.verdict();
            let saves = session.saves(step) || verdict.is_err();
            let needed = saves && (A::SAVES_EVALUATION || session.keeps_best());
            if (needed || session.is_due(step, course.eval_every))
                && let Some(evaluation) = algorithm.evaluate()?
            {
                metrics.extend(evaluation);
                watch.lap(Lane::Score, "eval")?;
            }
            metrics.extend(watch.metrics(stepped.tokens));
            session.report(step, &metrics)?;
            if saves {
                let files = algorithm.files()?;
                let fill = |dir: &Path| {
                    models::save(&dir.join(A::MODEL), algorithm.model(), course.base, &files)?;
                    checkpoint::save(dir, algorithm.trainer())
                };
                written = session.save(step, fill)?.join(A::MODEL);
            }
            verdict?;
            session.stop_at(step)?;
        }
        Ok(())
    };
    let ended = steps();
    session.end(ended.map(|()| written))
}
