//! A reward model in the process.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};

use super::{Asked, Completion, Source};
use crate::{
    config::PpoConfig,
    model::{Head, Model},
    run::models::{self, STANDARDIZATION, Wanted},
    trainer::{
        reward::Reward,
        reward_model::{self, RewardStandardization},
        stats::Summary,
        torch,
    },
};

/// A frozen reward model.
pub(in crate::run) struct FrozenModel {
    model: torch::Model,
    standardization: Option<RewardStandardization>,
    /// What each label counts.
    weights: Vec<f32>,
}

/// What a reward model's numbers are made into.
#[derive(Clone, Debug, Default)]
pub(in crate::run) struct Judging {
    /// Bring scores to mean 0 and variance 1.
    pub(in crate::run) standardize: bool,
    /// What each label counts, by name; none where there is one label.
    pub(in crate::run) weights: BTreeMap<String, f64>,
}

impl FrozenModel {
    /// Opens and loads the model of a directory.
    ///
    /// # Errors
    /// When it cannot be used, is no reward model, or has other labels than those that are weighted.
    pub(in crate::run) fn open(
        path: &Path,
        judging: &Judging,
        frozen: &torch::ModelOptions,
    ) -> Result<(Self, Model)> {
        let opened = models::open(path)?;
        ensure!(
            opened.spec().head == Head::Score,
            "{}: a reward model must have a score head, this is a language model",
            path.display()
        );
        let weights = models::label_weights(&opened, &judging.weights)?;
        let standardization = match judging.standardize {
            true => Some(standardization(opened.checkpoint.dir())?),
            false => None,
        };
        let model = models::load(&opened, Wanted::Scores, frozen)?;
        Ok((Self { model, standardization, weights }, opened))
    }

    /// Scores sequences in passes of up to so many tokens.
    ///
    /// # Errors
    /// When it cannot compute.
    pub(in crate::run) fn score(&self, sequences: &[&[u32]], budget: usize) -> Result<Vec<f32>> {
        Ok(self.worth(&self.rate(sequences, budget)?))
    }

    /// Returns what each label says of each sequence: `[sequences, labels]`.
    fn rate(&self, sequences: &[&[u32]], budget: usize) -> Result<Vec<f32>> {
        Ok(reward_model::rate(&self.model, self.weights.len(), sequences, budget)?)
    }

    /// Returns what each sequence is worth.
    fn worth(&self, rated: &[f32]) -> Vec<f32> {
        let standardized = |score| self.standardization.map_or(score, |scale| scale.apply(score));
        let sum = |rated: &[f32]| rated.iter().zip(&self.weights).map(|(x, w)| x * w).sum();
        rated.chunks_exact(self.weights.len()).map(sum).map(standardized).collect()
    }
}

/// One that judges a run's completions in the run's process.
pub(super) struct RewardModel {
    model: FrozenModel,
    token_budget: usize,
    /// Threads that it computes with.
    threads: usize,
    /// What its labels are called; none where there is one without a name.
    labels: Vec<String>,
    /// What they said last, `[completions, labels]`.
    rated: Vec<f32>,
}

impl RewardModel {
    /// Opens the model of a directory.
    ///
    /// # Errors
    /// As [`FrozenModel::open`], and when it cannot read the policy's rollouts of up to `longest` tokens.
    pub(super) fn open(
        (path, judging): (&Path, &Judging),
        config: &PpoConfig,
        policy: &Model,
        (longest, threads): (usize, usize),
    ) -> Result<Self> {
        let options = models::options(config.device, config.model.dtype, false);
        let frozen = torch::ModelOptions { frozen: true, ..options };
        let (model, opened) = FrozenModel::open(path, judging, &frozen)?;
        models::check_reader(policy, &opened, longest)?;
        let labels = opened.spec().labels.clone();
        let token_budget = config.ppo.micro_batch_tokens;
        Ok(Self { model, token_budget, threads, labels, rated: Vec::new() })
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
        self.rated = self.model.rate(&sequences, self.token_budget)?;
        Ok(self.model.worth(&self.rated).into_iter().map(Reward::Score).collect())
    }

    fn metrics(&mut self) -> Vec<(String, f64)> {
        let rated = std::mem::take(&mut self.rated);
        let of = |(label, name): (usize, &String)| {
            let said: Vec<f32> =
                rated.iter().skip(label).step_by(self.labels.len()).copied().collect();
            let Summary { mean, std, .. } = Summary::of(&said);
            [(format!("{name}/mean"), mean), (format!("{name}/std"), std)]
        };
        self.labels.iter().enumerate().flat_map(of).collect()
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
