//! A reward model in the process.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{Asked, Completion, Source};
use crate::{
    config::PpoConfig,
    model::{Head, Model},
    run::models::{self, STANDARDIZATION, Wanted},
    trainer::{
        reward::Reward,
        reward_model::{self, RewardStandardization},
        torch,
    },
};

/// A frozen reward model.
pub(in crate::run) struct FrozenModel {
    model: torch::Model,
    standardization: Option<RewardStandardization>,
}

impl FrozenModel {
    /// Opens and loads the model of a directory.
    ///
    /// # Errors
    /// When it cannot be used, or is no reward model.
    pub(in crate::run) fn open(
        path: &Path,
        standardize: bool,
        frozen: &torch::ModelOptions,
    ) -> Result<(Self, Model)> {
        let opened = models::open(path)?;
        ensure!(
            opened.spec().head == Head::Score,
            "{}: a reward model must have a score head, this is a language model",
            path.display()
        );
        let standardization = match standardize {
            true => Some(standardization(opened.checkpoint.dir())?),
            false => None,
        };
        let model = models::load(&opened, Wanted::Score(0), frozen)?;
        Ok((Self { model, standardization }, opened))
    }

    /// Scores sequences in passes of up to so many tokens.
    ///
    /// # Errors
    /// When it cannot compute.
    pub(in crate::run) fn score(&self, sequences: &[&[u32]], budget: usize) -> Result<Vec<f32>> {
        let scores = reward_model::score(&self.model, sequences, budget)?;
        let standardized = |score| self.standardization.map_or(score, |scale| scale.apply(score));
        Ok(scores.into_iter().map(standardized).collect())
    }
}

/// One that judges a run's completions in the run's process.
pub(super) struct RewardModel {
    model: FrozenModel,
    token_budget: usize,
    /// Threads that it computes with.
    threads: usize,
}

impl RewardModel {
    /// Opens the model of a directory.
    ///
    /// # Errors
    /// As [`FrozenModel::open`], and when it cannot read the policy's rollouts of up to `longest` tokens.
    pub(super) fn open(
        (path, standardize): (&Path, bool),
        config: &PpoConfig,
        policy: &Model,
        (longest, threads): (usize, usize),
    ) -> Result<Self> {
        let options = models::options(config.device, config.model.dtype, false);
        let frozen = torch::ModelOptions { frozen: true, ..options };
        let (model, opened) = FrozenModel::open(path, standardize, &frozen)?;
        models::check_reader(policy, &opened, longest)?;
        Ok(Self { model, token_budget: config.ppo.micro_batch_tokens, threads })
    }
}

impl Source for RewardModel {
    /// libtorch's matrix products are not batch-invariant: asked as completions come, the last bits of its scores would
    /// depend on the engine's pace.
    fn asked(&self) -> Asked {
        Asked::WithTheBatch
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        models::use_threads(self.threads)?;
        let sequences: Vec<Vec<u32>> =
            completions.iter().map(|completion| completion.rollout.sequence()).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let scores = self.model.score(&sequences, self.token_budget)?;
        Ok(scores.into_iter().map(Reward::Score).collect())
    }
}

/// Reads what brings a reward model's scores to mean 0 and variance 1.
fn standardization(model: &Path) -> Result<RewardStandardization> {
    let path = model.join(STANDARDIZATION);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reward.standardize needs {}", path.display()))?;
    let scale: RewardStandardization = serde_json::from_str(&text)
        .with_context(|| format!("{}: is not a standardization", path.display()))?;
    let usable = scale.mean.is_finite() && scale.std.is_finite() && scale.std >= 0.0;
    ensure!(
        usable,
        "{}: mean and std must be finite, std not negative, got {} and {}",
        path.display(),
        scale.mean,
        scale.std
    );
    Ok(scale)
}
