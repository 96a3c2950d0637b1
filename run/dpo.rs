//! Preference optimisation without rollouts, as a run.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{
    Launch, Metrics,
    batches::Batches,
    models::{self, Wanted},
    offline::{self, Course, Offline, Stepped},
    opening::Opening,
    plan::{self, Length},
    samples::{self, Samples},
};
use crate::{
    config::DpoConfig,
    data::PairSample,
    model::Model,
    trainer::{
        batch::MaskedSequence,
        dpo::{Dpo, DpoPair, DpoStats, reference_logprobs},
        learner::LanguageModel,
        torch::{self, LearningModel, ModelOptions},
    },
};

/// What came of a run.
#[derive(Clone, Debug)]
pub struct DpoOutcome {
    /// The model directory that was written last.
    pub policy: PathBuf,
    /// On held-out pairs, where there are any.
    pub evaluation: Option<DpoStats>,
}

/// Trains a policy on preference pairs and writes it into the run directory.
///
/// The reference's log-probs are computed before the first optimizer step, and the reference is then gone. Where it is the
/// policy as it starts, they are computed with the policy's own weights.
///
/// # Errors
/// As [`super::sft`].
pub fn dpo(config: &DpoConfig, launch: Launch<'_>) -> Result<DpoOutcome> {
    let opening = Opening::new(config, launch.earlier)?;
    models::use_threads(config.threads)?;
    let base = models::open(&config.model.path)?;
    let samples = samples::read::<PairSample>(&config.data, &base)?;
    let lengths = samples.train.iter().flat_map(Length::of_pair).collect();
    let checked = plan::check(config, config.memory, lengths)?;
    let model =
        models::options(config.device, config.model.dtype, config.model.activation_checkpointing);

    let options = &config.dpo;
    let batches = Batches::new(&config.data, config.seed, samples.train.len(), options.batch_size);
    let total = batches.total(options.epochs, options.max_steps);
    let mut aligning = Pairs::of(&samples);
    if let Some(path) = config.other_reference() {
        let reference = reference(path, (&base, &samples), &model)?;
        aligning.refer_to(&reference, config)?;
    }
    let policy = models::learner(&base, Wanted::LanguageModel, &model, &config.optimizer)?;
    if options.loss.has_reference() && config.other_reference().is_none() {
        aligning.refer_to(&policy, config)?;
    }
    let mut trainer =
        Dpo::new(policy, options.clone(), &config.optimizer, &config.schedule, total)?;
    opening.restore(&mut trainer)?;
    let mut alignment = Alignment { trainer, pairs: aligning, evaluation: None };
    let course = Course {
        base: &base,
        batches,
        total,
        eval_every: options.eval_every,
        invariants: config.invariants,
        checked,
        reports: samples.reports.clone(),
    };
    let policy = offline::train(config, launch, opening, course, &mut alignment)?;
    Ok(DpoOutcome { policy, evaluation: alignment.evaluation })
}

/// Loads a reference that is another model than the policy.
fn reference(
    path: &Path,
    (base, samples): (&Model, &Samples<PairSample>),
    options: &ModelOptions,
) -> Result<torch::Model> {
    let opened = models::open(path)?;
    let pairs = samples.train.iter().chain(&samples.eval);
    let longest = pairs.map(|pair| pair.chosen.len().max(pair.rejected.len())).max();
    models::check_reader(base, &opened, longest.unwrap_or_default())?;
    let options = ModelOptions { frozen: true, activation_checkpointing: false, ..*options };
    models::load(&opened, Wanted::LanguageModel, &options)
}

/// Pairs to learn from, and pairs to measure on.
struct Pairs<'a> {
    train: Vec<DpoPair<'a>>,
    eval: Vec<DpoPair<'a>>,
}

impl<'a> Pairs<'a> {
    fn of(samples: &'a Samples<PairSample>) -> Self {
        let [train, eval] =
            [&samples.train, &samples.eval].map(|samples| samples.iter().map(pair).collect());
        Self { train, eval }
    }

    /// Computes what a reference says of the pairs: in the micro-batches of the first epoch, and of an evaluation.
    fn refer_to(&mut self, model: &impl LanguageModel, config: &DpoConfig) -> Result<()> {
        let (options, samples) = (&config.dpo, self.train.len());
        let mut batches = Batches::new(&config.data, config.seed, samples, options.batch_size);
        for _ in 0..batches.total(1, options.max_steps) {
            let dealt = batches.deal();
            let batch: Vec<_> = dealt.iter().map(|&i| self.train[i]).collect();
            let reference = reference_logprobs(model, &batch, options.micro_batch_tokens)?;
            for (i, reference) in dealt.into_iter().zip(reference) {
                self.train[i].reference = reference;
            }
        }
        let reference = reference_logprobs(model, &self.eval, options.micro_batch_tokens)?;
        for (pair, reference) in self.eval.iter_mut().zip(reference) {
            pair.reference = reference;
        }
        Ok(())
    }
}

/// A policy with the pairs that it learns from.
struct Alignment<'a> {
    trainer: Dpo<LearningModel>,
    pairs: Pairs<'a>,
    evaluation: Option<DpoStats>,
}

impl Offline for Alignment<'_> {
    type Trainer = Dpo<LearningModel>;

    const STAGE: &'static str = "dpo";
    const MODEL: &'static str = "policy";

    fn trainer(&self) -> &Self::Trainer {
        &self.trainer
    }

    fn model(&self) -> &torch::Model {
        &self.trainer.policy().model
    }

    fn step(&mut self, samples: &[usize]) -> Result<Stepped> {
        let batch: Vec<_> = samples.iter().map(|&i| self.pairs.train[i]).collect();
        let stats = self.trainer.step(&batch)?;
        let tokens = |pair: &DpoPair<'_>| pair.chosen.tokens.len() + pair.rejected.tokens.len();
        Ok(Stepped {
            metrics: Metrics::from_iter(stats.metrics()),
            skips: stats.skips,
            tokens: batch.iter().map(tokens).sum(),
        })
    }

    fn evaluate(&mut self) -> Result<Option<Metrics>> {
        if self.pairs.eval.is_empty() {
            return Ok(None);
        }
        let evaluation = self.trainer.evaluate(&self.pairs.eval)?;
        self.evaluation = Some(evaluation);
        Ok(Some(Metrics::from_iter(evaluation.eval_metrics())))
    }
}

fn pair(sample: &PairSample) -> DpoPair<'_> {
    DpoPair {
        chosen: MaskedSequence { tokens: &sample.chosen, mask: &sample.chosen_mask },
        rejected: MaskedSequence { tokens: &sample.rejected, mask: &sample.rejected_mask },
        margin: sample.margin,
        rewards: [sample.chosen_reward, sample.rejected_reward],
        reference: [0.0; 2],
    }
}
