//! The loop of supervised fine-tuning.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{
    Earlier, Launch, Metrics,
    batches::Batches,
    models::{self, Wanted},
    record::Lane,
    samples,
    session::{self, Session},
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
    session::check(config, launch.earlier)?;
    ensure!(launch.earlier != Earlier::Resume, "only PPO can be resumed yet");
    models::use_threads(config.threads)?;
    let base = models::open(&config.model.path)?;
    let samples = samples::read::<SftSample>(&config.data, &base)?;
    let model =
        models::options(config.device, config.model.dtype, config.model.activation_checkpointing);
    let policy = models::learner(&base, Wanted::LanguageModel, &model, &config.optimizer)?;

    let options = &config.sft;
    let mut batches =
        Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut trainer =
        Sft::new(policy, options.clone(), &config.optimizer, &config.schedule, total)?;
    let mut session = Session::start(launch, config, ("sft", total))?;
    session.notes(&samples.reports)?;
    let held_out: Vec<_> = samples.eval.iter().map(sequence).collect();
    let mut outcome = SftOutcome { policy: PathBuf::new(), evaluation: None };
    for step in 1..=total {
        let mut watch = session.begin(step);
        let batch: Vec<_> =
            batches.deal().into_iter().map(|i| sequence(&samples.train[i])).collect();
        let mut metrics = Metrics::from_iter(trainer.step(&batch)?.metrics());
        watch.lap(Lane::Train, "update")?;
        if session.is_due(step, options.eval_every) && !held_out.is_empty() {
            let evaluation = trainer.evaluate(&held_out)?;
            metrics.extend(Metrics::from_iter(evaluation.metrics()));
            outcome.evaluation = Some(evaluation);
            watch.lap(Lane::Score, "eval")?;
        }
        metrics.extend(watch.metrics());
        session.report(step, &metrics)?;
        if session.saves(step) {
            let write = |dir: &std::path::Path| {
                models::save(&dir.join("policy"), &trainer.policy().model, &base, &[])
            };
            outcome.policy = session.save(step, write)?.join("policy");
        }
    }
    session.end(Ok(outcome))
}

fn sequence(sample: &SftSample) -> MaskedSequence<'_> {
    MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask }
}
