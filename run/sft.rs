//! Supervised fine-tuning, as a run.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    models::{self, Wanted},
    offline::{self, Course, Offline, Stepped},
    opening::Opening,
    plan::{self, Length},
    samples,
};
use crate::{
    config::SftConfig,
    data::SftSample,
    trainer::{
        batch::MaskedSequence,
        sft::{Sft, SftEvaluation},
        torch::{self, LearningModel},
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
    let batches = Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut trainer =
        Sft::new(policy, options.clone(), &config.optimizer, &config.schedule, total)?;
    opening.restore(&mut trainer)?;
    let mut tuning = Tuning {
        trainer,
        samples: samples.train.iter().map(sequence).collect(),
        held_out: samples.eval.iter().map(sequence).collect(),
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
    let policy = offline::train(config, launch, opening, course, &mut tuning)?;
    Ok(SftOutcome { policy, evaluation: tuning.evaluation })
}

/// A policy with the samples that it is to imitate.
struct Tuning<'a> {
    trainer: Sft<LearningModel>,
    samples: Vec<MaskedSequence<'a>>,
    held_out: Vec<MaskedSequence<'a>>,
    evaluation: Option<SftEvaluation>,
}

impl Offline for Tuning<'_> {
    type Trainer = Sft<LearningModel>;

    const STAGE: &'static str = "sft";
    const MODEL: &'static str = "policy";

    fn trainer(&self) -> &Self::Trainer {
        &self.trainer
    }

    fn model(&self) -> &torch::Model {
        &self.trainer.policy().model
    }

    fn step(&mut self, samples: &[usize]) -> Result<Stepped> {
        let batch: Vec<_> = samples.iter().map(|&i| self.samples[i]).collect();
        let stats = self.trainer.step(&batch)?;
        Ok(Stepped {
            metrics: Metrics::from_iter(stats.metrics()),
            skips: stats.skips,
            tokens: batch.iter().map(|one| one.tokens.len()).sum(),
        })
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        if self.held_out.is_empty() {
            return Ok(None);
        }
        let evaluation = self.trainer.evaluate(&self.held_out)?;
        self.evaluation = Some(evaluation);
        Ok(Some(Metrics::from_iter(evaluation.metrics())))
    }
}

fn sequence(sample: &SftSample) -> MaskedSequence<'_> {
    MaskedSequence { tokens: &sample.tokens, mask: &sample.loss_mask }
}
