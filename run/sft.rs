//! The loop of supervised fine-tuning.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    checkpoint,
    invariants::StepInvariants,
    models::{self, Wanted},
    opening::Opening,
    plan::{self, Length},
    record::Lane,
    samples,
    session::Session,
};
use crate::{
    config::SftConfig,
    data::SftSample,
    trainer::{
        batch::MaskedSequence,
        sft::{Sft, SftEvaluation},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct SftOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out data, where there is any.
    pub evaluation: Option<SftEvaluation>,
}

/// Fine-tunes a language model and writes it into the run directory.
///
/// # Errors
/// One line that says what is wrong with configuration, model, data or disk. What can be refused is refused before the
/// run directory is made.
pub fn sft(config: &SftConfig, launch: Launch<'_>) -> Result<SftOutcome> {
    let opening = Opening::new(config, launch.earlier)?;
    models::use_threads(config.threads)?;
    let base = models::open(&config.model.path)?;
    let samples = samples::read::<SftSample>(&config.data, &base)?;
    let lengths = samples.train.iter().map(Length::of_text).collect();
    let checked = plan::check(config, config.memory, lengths)?;
    let model =
        models::options(config.device, config.model.dtype, config.model.activation_checkpointing);
    let policy = models::learner(&base, Wanted::LanguageModel, &model, &config.optimizer)?;

    let options = &config.sft;
    let mut batches =
        Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut trainer =
        Sft::new(policy, options.clone(), &config.optimizer, &config.schedule, total)?;
    opening.restore(&mut trainer)?;
    let done = opening.done();
    batches.seek(done)?;
    let held_out: Vec<_> = samples.eval.iter().map(sequence).collect();
    let mut outcome = SftOutcome { policy: opening.model("policy"), evaluation: None };
    if opening.is_over(total, launch.observer) {
        return Ok(outcome);
    }
    let mut session = Session::start(launch, config, opening, ("sft", total))?;
    session.planned(&checked)?;
    session.notes(&samples.reports)?;
    let mut invariants = StepInvariants::new(config.invariants);
    let mut steps = || -> Result<()> {
        for step in done + 1..=total {
            let mut watch = session.begin(step);
            let batch: Vec<_> =
                batches.deal().into_iter().map(|i| sequence(&samples.train[i])).collect();
            let tokens = batch.iter().map(|one| one.tokens.len()).sum();
            let stats = trainer.step(&batch)?;
            let mut metrics = Metrics::from_iter(stats.metrics());
            watch.lap(Lane::Train, "update")?;
            metrics.extend(invariants.stepped(
                step,
                (stats.skips, &trainer.policy().model),
                &mut session,
            )?);
            let verdict = invariants.verdict();
            let saves = session.saves(step) || verdict.is_err();
            let measures =
                session.is_due(step, options.eval_every) || (saves && session.keeps_best());
            if measures && !held_out.is_empty() {
                let evaluation = trainer.evaluate(&held_out)?;
                metrics.extend(Metrics::from_iter(evaluation.metrics()));
                outcome.evaluation = Some(evaluation);
                watch.lap(Lane::Score, "eval")?;
            }
            metrics.extend(watch.metrics(tokens));
            session.report(step, &metrics)?;
            if saves {
                let fill = |dir: &Path| {
                    models::save(&dir.join("policy"), &trainer.policy().model, &base, &[])?;
                    checkpoint::save(dir, &trainer)
                };
                outcome.policy = session.save(step, fill)?.join("policy");
            }
            verdict?;
            session.stop_at(step)?;
        }
        Ok(())
    };
    let ended = steps();
    session.end(ended.map(|()| outcome))
}

fn sequence(sample: &SftSample) -> MaskedSequence<'_> {
    MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask }
}
