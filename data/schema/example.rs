//! What a row means, whatever its schema calls it.

use serde_json::{Map, Value, json};

use super::super::row::Content;

/// One example of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What is to be learned from.
    pub meaning: Meaning,
    /// Ratings of the text or the completion, by attribute.
    pub ratings: Map<String, Value>,
    /// All other columns.
    pub rest: Map<String, Value>,
}

/// What is to be learned from.
///
/// Contents are text or a list of `{role, content}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// Everything in one text.
    Text(String),
    /// A whole conversation.
    Conversation(Vec<Value>),
    /// Something to complete.
    Prompt(Value),
    /// A prompt with a completion, and whether that is a good one, where the data say so.
    Completion {
        /// What is completed.
        prompt: Value,
        /// With what.
        completion: Value,
        /// Whether it should be like this.
        good: Option<bool>,
    },
    /// Two completions, one better than the other. Without a prompt they are whole texts or conversations.
    Pair {
        /// What is completed.
        prompt: Option<Value>,
        /// The better completion.
        chosen: Value,
        /// The worse one.
        rejected: Value,
        /// `margin`, `chosen_reward` and `rejected_reward`, as far as the data have them.
        rewards: Map<String, Value>,
    },
}

impl Example {
    /// Returns what is completed: two examples with the same prompt ask the same. `None` where the data do not say what
    /// of a text is the prompt.
    pub fn prompt(&self) -> Option<Value> {
        match &self.meaning {
            Meaning::Text(_) => None,
            Meaning::Conversation(messages) => {
                last_answer(messages).map(|(before, _)| Value::from(before))
            }
            Meaning::Prompt(prompt) | Meaning::Completion { prompt, .. } => Some(prompt.clone()),
            Meaning::Pair { prompt, .. } => prompt.clone(),
        }
    }

    /// Takes columns of these names for its ratings, and what was taken for some before for any other columns. Nothing
    /// changes where no name is given.
    ///
    /// # Errors
    /// When one is no number.
    pub(in crate::data) fn rated_by(mut self, attributes: &[String]) -> Result<Self, String> {
        if attributes.is_empty() {
            return Ok(self);
        }
        self.rest.extend(std::mem::take(&mut self.ratings));
        for name in attributes {
            match self.rest.shift_remove(name) {
                None | Some(Value::Null) => {}
                Some(rating) if rating.is_number() => {
                    drop(self.ratings.insert(name.clone(), rating))
                }
                Some(_) => return Err(format!("column {name:?} must be a finite number")),
            }
        }
        Ok(self)
    }

    /// Says whether a prompt, a completion or a turn holds nothing but white space.
    pub fn has_blank(&self) -> bool {
        match &self.meaning {
            Meaning::Text(text) => text.trim().is_empty(),
            Meaning::Conversation(messages) => messages.iter().any(is_blank),
            Meaning::Prompt(prompt) => is_blank(prompt),
            Meaning::Completion { prompt, completion, .. } => {
                is_blank(prompt) || is_blank(completion)
            }
            Meaning::Pair { prompt, chosen, rejected, .. } => {
                prompt.as_ref().is_some_and(is_blank) || is_blank(chosen) || is_blank(rejected)
            }
        }
    }

    /// Returns all that training would see, for comparing examples; not the columns beside it.
    pub fn identity(&self) -> Value {
        match &self.meaning {
            Meaning::Text(text) => json!([0, text]),
            Meaning::Conversation(messages) => json!([1, messages]),
            Meaning::Prompt(prompt) => json!([2, prompt]),
            Meaning::Completion { prompt, completion, good } => {
                json!([3, prompt, completion, good])
            }
            Meaning::Pair { prompt, chosen, rejected, .. } => json!([4, prompt, chosen, rejected]),
        }
    }
}

/// Splits a conversation before the last turn, if that is the assistant's.
pub(super) fn last_answer(messages: &[Value]) -> Option<(&[Value], &Value)> {
    let (last, before) = messages.split_last()?;
    (last["role"] == "assistant" && !before.is_empty()).then_some((before, last))
}

pub(super) fn value(content: Content) -> Value {
    match content {
        Content::Text(text) => text.into(),
        Content::Messages(messages) => messages.into(),
    }
}

/// Of a text, a message or a list of messages. What is not text (a tool call, an image) is not blank.
fn is_blank(content: &Value) -> bool {
    match content {
        Value::String(text) => text.trim().is_empty(),
        Value::Array(messages) => messages.iter().any(is_blank),
        Value::Object(message) => message.get("content").is_some_and(is_blank),
        _ => false,
    }
}
