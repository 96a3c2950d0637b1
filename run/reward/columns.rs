//! A column of the data that completions are held against.

use std::borrow::Cow;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::data::PromptSample;

/// A column by its name.
#[derive(Clone, Debug)]
pub(super) struct Column(String);

impl Column {
    pub(super) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Returns the text that a prompt has in it.
    ///
    /// # Errors
    /// Names the prompt that lacks the column, or has something else than a text in it.
    pub(super) fn text<'a>(&self, prompt: &'a PromptSample) -> Result<&'a str> {
        match self.value(prompt)? {
            Value::String(text) => Ok(text),
            other => bail!("{}: column {:?} must be a string, got {other}", prompt.place, self.0),
        }
    }

    /// Returns the text that a prompt has in it, or its number as one.
    ///
    /// # Errors
    /// Names the prompt that lacks the column, or has neither in it.
    pub(super) fn text_or_number<'a>(&self, prompt: &'a PromptSample) -> Result<Cow<'a, str>> {
        match self.value(prompt)? {
            Value::String(text) => Ok(text.into()),
            Value::Number(number) => Ok(number.to_string().into()),
            other => bail!(
                "{}: column {:?} must be a string or a number, got {other}",
                prompt.place,
                self.0
            ),
        }
    }

    fn value<'a>(&self, prompt: &'a PromptSample) -> Result<&'a Value> {
        match prompt.extra.get(&self.0) {
            Some(value) => Ok(value),
            None => bail!("{}: lacks the column {:?} that the reward needs", prompt.place, self.0),
        }
    }
}
