//! What a completion is worth: a reward model in the process, or a column of the data that it is held against.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};

use super::{
    generator::Answered,
    models::{self, STANDARDIZATION, Wanted},
};
use crate::{
    config::{PpoConfig, RewardConfig},
    data::PromptSample,
    model::{Head, Model, Tokenizer},
    rollout::Rollout,
    trainer::{
        reward::Reward,
        reward_model::{self, RewardStandardization},
        torch,
    },
};

/// Where rewards come from.
pub(super) enum RewardSource {
    /// A reward model's score of prompt and completion.
    Model(Box<RewardModel>),
    /// 1 for the right text, 0 for any other.
    ExactMatch(Column),
    /// A share of 1 for each right token in its place.
    PositionMatch(Column),
}

/// A frozen reward model.
pub(super) struct RewardModel {
    model: torch::Model,
    standardization: Option<RewardStandardization>,
    token_budget: usize,
}

/// A column of the data, and how to read it.
pub(super) struct Column {
    name: String,
    tokenizer: Tokenizer,
}

impl RewardSource {
    /// Opens what the configuration names.
    ///
    /// # Errors
    /// When the reward model cannot be opened, is not one, or cannot read the policy's rollouts of up to `longest` tokens.
    pub(super) fn open(config: &PpoConfig, policy: &Model, longest: usize) -> Result<Self> {
        let column = |name: &String| -> Result<Column> {
            Ok(Column { name: name.clone(), tokenizer: policy.tokenizer()?.clone() })
        };
        Ok(match &config.reward {
            RewardConfig::ExactMatch { column: name } => Self::ExactMatch(column(name)?),
            RewardConfig::PositionMatch { column: name } => Self::PositionMatch(column(name)?),
            RewardConfig::Model { path, standardize } => {
                let opened = models::open(path)?;
                ensure!(
                    opened.spec().head == Head::Score,
                    "{}: a reward model must have a score head, this is a language model",
                    path.display()
                );
                models::check_reader(policy, &opened, longest)?;
                let model = models::options(config.device, config.model.dtype, false);
                let frozen = torch::ModelOptions { frozen: true, ..model };
                Self::Model(Box::new(RewardModel {
                    model: models::load(&opened, Wanted::Score(0), &frozen)?,
                    standardization: match standardize {
                        true => Some(standardization(opened.checkpoint.dir())?),
                        false => None,
                    },
                    token_budget: config.ppo.micro_batch_tokens,
                }))
            }
        })
    }

    /// Checks that every prompt has what its rewards will need, for a run should not find out on the way.
    ///
    /// # Errors
    /// Names the first prompt that lacks the column, or has something else than a text in it.
    pub(super) fn check(&self, prompts: &[PromptSample]) -> Result<()> {
        match self {
            Self::Model(_) => Ok(()),
            Self::ExactMatch(column) => {
                prompts.iter().try_for_each(|prompt| column.text(prompt).map(drop))
            }
            Self::PositionMatch(column) => {
                prompts.iter().try_for_each(|prompt| column.tokens(prompt).map(drop))
            }
        }
    }

    /// Returns what each rollout earned, in the order of prompts and samples.
    ///
    /// # Errors
    /// When a prompt lacks the column, or the reward model cannot compute.
    pub(super) fn score(
        &self,
        answered: &[Arc<Answered>],
        prompts: &[PromptSample],
    ) -> Result<Vec<Reward>> {
        let rollouts = || {
            answered
                .iter()
                .flat_map(|one| one.rollouts.iter().map(|rollout| (&prompts[one.prompt], rollout)))
        };
        match self {
            Self::Model(model) => model.score(rollouts().map(|(_, rollout)| rollout)),
            Self::ExactMatch(column) => {
                rollouts().map(|(prompt, rollout)| column.exact_match(prompt, rollout)).collect()
            }
            Self::PositionMatch(column) => {
                rollouts().map(|(prompt, rollout)| column.position_match(prompt, rollout)).collect()
            }
        }
    }
}

impl RewardModel {
    fn score<'a>(&self, rollouts: impl Iterator<Item = &'a Rollout>) -> Result<Vec<Reward>> {
        let sequences: Vec<Vec<u32>> = rollouts.map(Rollout::sequence).collect();
        let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let scores = reward_model::score(&self.model, &sequences, self.token_budget)?;
        let standardized = |score| self.standardization.map_or(score, |scale| scale.apply(score));
        Ok(scores.into_iter().map(|score| Reward::Score(standardized(score))).collect())
    }
}

impl Column {
    fn exact_match(&self, prompt: &PromptSample, rollout: &Rollout) -> Result<Reward> {
        let text = self.tokenizer.decode(&rollout.completion, true)?;
        Ok(Reward::Score(f32::from(u8::from(text.trim() == self.text(prompt)?.trim()))))
    }

    fn position_match(&self, prompt: &PromptSample, rollout: &Rollout) -> Result<Reward> {
        let wanted = self.tokens(prompt)?;
        let share = 1.0 / wanted.len() as f32;
        let right = |(place, token)| if wanted.get(place) == Some(token) { share } else { 0.0 };
        Ok(Reward::PerToken(rollout.completion.iter().enumerate().map(right).collect()))
    }

    fn tokens(&self, prompt: &PromptSample) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.encode(self.text(prompt)?, false)?;
        ensure!(!tokens.is_empty(), "{}: column {:?} is empty", prompt.place, self.name);
        Ok(tokens)
    }

    fn text<'a>(&self, prompt: &'a PromptSample) -> Result<&'a str> {
        match prompt.extra.get(&self.name) {
            Some(serde_json::Value::String(text)) => Ok(text),
            Some(other) => {
                bail!("{}: column {:?} must be a string, got {other}", prompt.place, self.name)
            }
            None => {
                bail!("{}: lacks the column {:?} that the reward needs", prompt.place, self.name)
            }
        }
    }
}

/// Reads what brings a reward model's scores to mean 0 and variance 1.
fn standardization(model: &std::path::Path) -> Result<RewardStandardization> {
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
