//! A finished completion, as a source of rewards sees it.

use std::fmt::{self, Display, Formatter};

use anyhow::Result;

use crate::{data::PromptSample, model::Tokenizer, rollout::Rollout};

/// A finished completion and its prompt.
#[derive(Clone, Copy, Debug)]
pub(in crate::run) struct Completion<'a> {
    /// Its row of the data.
    pub(in crate::run) prompt: &'a PromptSample,
    /// What was sampled.
    pub(in crate::run) rollout: &'a Rollout,
}

impl Completion<'_> {
    /// Returns the text of its prompt, without special tokens.
    ///
    /// # Errors
    /// As [`Completion::text`].
    pub(super) fn prompt_text(&self, tokenizer: &Tokenizer) -> Result<String> {
        Ok(tokenizer.decode(self.prompt.tokens.ids(), true)?)
    }

    /// Returns its text, without special tokens.
    ///
    /// # Errors
    /// When the tokens are none of the tokenizer's.
    pub(super) fn text(&self, tokenizer: &Tokenizer) -> Result<String> {
        Ok(tokenizer.decode(&self.rollout.completion, true)?)
    }
}

/// By its row, its ticket and its sample.
impl Display for Completion<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (ticket, sample) = (self.rollout.prompt.id.0, self.rollout.sample);
        write!(f, "{} (prompt {ticket}, sample {sample})", self.prompt.place)
    }
}
