//! Completions held against a column of the data, as texts or token by token.

use anyhow::{Result, ensure};

use super::verdict;
use crate::{
    data::PromptSample,
    model::Tokenizer,
    run::reward::{Column, Completion, Source},
    trainer::reward::Reward,
};

/// 1 for the right text, 0 for any other.
pub(in crate::run::reward) struct ExactMatch {
    pub(in crate::run::reward) column: Column,
    pub(in crate::run::reward) tokenizer: Tokenizer,
}

impl Source for ExactMatch {
    fn check(&self, prompt: &PromptSample) -> Result<()> {
        self.column.text(prompt).map(drop)
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            let text = completion.text(&self.tokenizer)?;
            Ok(verdict(text.trim() == self.column.text(completion.prompt)?.trim()))
        };
        completions.iter().map(score).collect()
    }
}

/// A share of 1 for each right token in its place.
pub(in crate::run::reward) struct PositionMatch {
    pub(in crate::run::reward) column: Column,
    pub(in crate::run::reward) tokenizer: Tokenizer,
}

impl PositionMatch {
    fn tokens(&self, prompt: &PromptSample) -> Result<Vec<u32>> {
        let tokens = self.tokenizer.encode(self.column.text(prompt)?, false)?;
        ensure!(!tokens.is_empty(), "{}: column {:?} is empty", prompt.place, self.column.name());
        Ok(tokens)
    }
}

impl Source for PositionMatch {
    fn check(&self, prompt: &PromptSample) -> Result<()> {
        self.tokens(prompt).map(drop)
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            let wanted = self.tokens(completion.prompt)?;
            let share = 1.0 / wanted.len() as f32;
            let right = |(place, token)| if wanted.get(place) == Some(token) { share } else { 0.0 };
            let tokens = completion.rollout.completion.iter().enumerate();
            Ok(Reward::PerToken(tokens.map(right).collect()))
        };
        completions.iter().map(score).collect()
    }
}
