//! A reference that is asked before the first optimizer step, and then gone.

use std::path::Path;

use anyhow::Result;

use super::{
    batches::Batches,
    models::{self, Wanted},
    offline::{self, Algorithm, Lessons, Passes},
};
use crate::{
    config::OfflineConfig,
    model::Model,
    trainer::{
        learner::{LanguageLearner, LanguageModel},
        referred::Referred,
        torch::{self, LearningModel, ModelOptions},
    },
};

/// Which model is the reference.
pub(super) enum Reference<'a> {
    /// None: the loss has no reference.
    None,
    /// The policy as it starts.
    Policy,
    /// Another model directory.
    Other(&'a Path),
}

/// Loads the policy, and fills the samples with what the reference says of them. Where that is the policy as it starts, it is
/// the policy's own weights that say it, an adapter left out; another one is gone before the policy is loaded.
///
/// # Errors
/// When a model cannot be used, or the reference cannot read the samples.
pub(super) fn policy<C: OfflineConfig<Options: Algorithm>, S: Referred>(
    config: &C,
    base: &Model,
    reference: Reference<'_>,
    lessons: &mut Lessons<S>,
    token_budget: usize,
) -> Result<LearningModel> {
    if let Reference::Other(path) = reference {
        let other = load(path, base, longest(lessons), &offline::learning(config).options())?;
        refer(config, lessons, &other, token_budget)?;
    }
    let policy = offline::learner(config, base, Wanted::LanguageModel)?;
    if let Reference::Policy = reference {
        match policy.bare() {
            Some(bare) => refer(config, lessons, &*bare, token_budget)?,
            None => refer(config, lessons, &policy, token_budget)?,
        }
    }
    Ok(policy)
}

/// Loads a model that is asked about samples, and is another than the one that learns.
///
/// # Errors
/// When it cannot be used, or cannot read samples of so many tokens.
pub(super) fn load(
    path: &Path,
    base: &Model,
    longest: usize,
    options: &ModelOptions,
) -> Result<torch::Model> {
    let opened = models::open(path)?;
    models::check_reader(base, &opened, longest)?;
    let options = ModelOptions { frozen: true, activation_checkpointing: false, ..*options };
    models::load(&opened, Wanted::LanguageModel, &options)
}

fn longest<S: Referred>(lessons: &Lessons<S>) -> usize {
    let samples = lessons.train.iter().chain(&lessons.held_out);
    samples.map(Referred::longest).max().unwrap_or_default()
}

/// Computes what a reference says of the samples: in the micro-batches of the first epoch, and of an evaluation.
fn refer<C: OfflineConfig<Options: Algorithm>, S: Referred>(
    config: &C,
    lessons: &mut Lessons<S>,
    model: &dyn LanguageModel,
    token_budget: usize,
) -> Result<()> {
    for dealt in first_epoch(config, lessons.train.len()) {
        let mut batch: Vec<S> = dealt.iter().map(|&i| lessons.train[i]).collect();
        S::refer(&mut batch, model, token_budget)?;
        dealt.into_iter().zip(batch).for_each(|(i, sample)| lessons.train[i] = sample);
    }
    Ok(S::refer(&mut lessons.held_out, model, token_budget)?)
}

/// Deals the samples of a run's first epoch, optimizer step by optimizer step.
pub(super) fn first_epoch<C: OfflineConfig<Options: Algorithm>>(
    config: &C,
    samples: usize,
) -> impl Iterator<Item = Vec<usize>> {
    let Passes { max_steps, batch_size, .. } = config.options().passes();
    let shared = config.common().shared;
    let mut batches = Batches::new(shared.data, shared.seed, samples, batch_size);
    (0..batches.total(1, max_steps)).map(move |_| batches.deal())
}
