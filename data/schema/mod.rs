//! The shapes in which data sets come: ours (TRL's columns), NeMo-Aligner's, HelpSteer's and verl's.
//!
//! A [`Schema`] says what a row means: it reads it into an [`Example`]. A [`Form`] is what our loaders read: it writes an
//! [`Example`] as rows. Both are plain: no tokenizer, no template. [`convert`](super::convert()) puts the two together
//! for whole files.

mod example;
mod form;
mod read;

use std::{fmt, str::FromStr};

use serde::Serialize;
use serde_json::Value;

pub use example::{Example, Meaning};
pub use form::Form;

use super::row::Row;

/// The shape of a data file's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Schema {
    /// `text`: everything in one.
    Text,
    /// `messages`: a conversation of `{role, content}`.
    Messages,
    /// `prompt`, `completion`.
    PromptCompletion,
    /// `prompt` alone.
    Prompts,
    /// `chosen`, `rejected`, and `prompt` where there is one.
    Preference,
    /// `prompt`, `completion`, and a `label` that says whether the completion is a good one.
    Unpaired,
    /// `prompt`, `completion` (HelpSteer: `response`), or `text`, or `messages`, and a number for each of some
    /// [`ATTRIBUTES`].
    Ratings,
    /// `conversations` of `{from, value}`, `system`, `mask` (ShareGPT's, too).
    NemoChat,
    /// `input`, `output`.
    NemoPromptCompletion,
    /// `prompt`, `chosen_response`, `rejected_response`.
    NemoDpo,
    /// `prompt`, `response`, and a `preference` that is "chosen" or "rejected".
    NemoKto,
    /// `text` twice: a line with the chosen, then a line with the rejected. Looks like [`Schema::Text`], so it is never
    /// guessed.
    NemoComparisons,
    /// `text`, and a `label` with a number for each of [`ATTRIBUTES`], -100 where there is none.
    NemoRegression,
    /// `prompt` as messages, `reward_model.ground_truth`, `data_source`, `ability`, `extra_info`.
    Verl,
}

/// What NeMo-Aligner's regression labels stand for, in their order.
pub const ATTRIBUTES: [&str; 9] = [
    "quality",
    "toxicity",
    "humor",
    "creativity",
    "helpfulness",
    "correctness",
    "coherence",
    "complexity",
    "verbosity",
];

impl Schema {
    /// Every schema.
    pub const ALL: [Self; 14] = [
        Self::Text,
        Self::Messages,
        Self::PromptCompletion,
        Self::Prompts,
        Self::Preference,
        Self::Unpaired,
        Self::Ratings,
        Self::NemoChat,
        Self::NemoPromptCompletion,
        Self::NemoDpo,
        Self::NemoKto,
        Self::NemoComparisons,
        Self::NemoRegression,
        Self::Verl,
    ];

    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Messages => "messages",
            Self::PromptCompletion => "prompt-completion",
            Self::Prompts => "prompts",
            Self::Preference => "preference",
            Self::Unpaired => "unpaired",
            Self::Ratings => "ratings",
            Self::NemoChat => "nemo-chat",
            Self::NemoPromptCompletion => "nemo-prompt-completion",
            Self::NemoDpo => "nemo-dpo",
            Self::NemoKto => "nemo-kto",
            Self::NemoComparisons => "nemo-comparisons",
            Self::NemoRegression => "nemo-regression",
            Self::Verl => "verl",
        }
    }

    /// Recognises the schema of a row by its columns; `None` where it is none of them.
    pub fn of(row: &Row) -> Option<Self> {
        let column = |name: &str| row.columns.get(name).filter(|value| !value.is_null());
        let has = |names: &[&str]| names.iter().all(|name| column(name).is_some());
        let text = |name: &str| column(name).is_some_and(Value::is_string);
        let rated = || ATTRIBUTES.iter().any(|name| column(name).is_some_and(Value::is_number));
        let turns = column("conversations").and_then(Value::as_array);
        let recognised = if turns.is_some_and(|turns| turns.iter().any(is_nemo_turn)) {
            Self::NemoChat
        } else if has(&["prompt"]) && column("reward_model").is_some_and(Value::is_object) {
            Self::Verl
        } else if has(&["chosen_response", "rejected_response"]) {
            Self::NemoDpo
        } else if has(&["chosen", "rejected"]) {
            Self::Preference
        } else if has(&["prompt", "response"]) && text("preference") {
            Self::NemoKto
        } else if has(&["prompt", "completion"]) && column("label").is_some_and(Value::is_boolean) {
            Self::Unpaired
        } else if has(&["text"]) && column("label").is_some_and(Value::is_array) {
            Self::NemoRegression
        } else if rated()
            && [&["prompt", "response"][..], &["prompt", "completion"], &["text"], &["messages"]]
                .iter()
                .any(|names| has(names))
        {
            Self::Ratings
        } else if has(&["messages"]) {
            Self::Messages
        } else if has(&["prompt", "completion"]) {
            Self::PromptCompletion
        } else if has(&["input", "output"]) {
            Self::NemoPromptCompletion
        } else if has(&["text"]) {
            Self::Text
        } else if has(&["prompt"]) || has(&["input"]) {
            Self::Prompts
        } else {
            return None;
        };
        Some(recognised)
    }

    /// Says whether a command's loader reads such rows as they are; others have to be converted first.
    pub fn is_read_by(self, task: Task) -> bool {
        match self {
            Self::Text | Self::PromptCompletion | Self::NemoPromptCompletion => {
                matches!(task, Task::Sft | Task::Ppo)
            }
            Self::Messages => task == Task::Sft,
            Self::Prompts => task == Task::Ppo,
            Self::Preference | Self::NemoDpo => matches!(task, Task::Rm | Task::Dpo),
            Self::Unpaired => task == Task::Kto,
            Self::Ratings => task == Task::Regression,
            Self::NemoChat
            | Self::NemoKto
            | Self::NemoComparisons
            | Self::NemoRegression
            | Self::Verl => false,
        }
    }

    /// Returns the command that such data are most likely for.
    pub fn task(self) -> Task {
        match self {
            Self::Text
            | Self::Messages
            | Self::PromptCompletion
            | Self::NemoChat
            | Self::NemoPromptCompletion => Task::Sft,
            Self::Preference | Self::NemoDpo | Self::NemoComparisons => Task::Dpo,
            Self::Prompts | Self::Verl => Task::Ppo,
            Self::Unpaired | Self::NemoKto => Task::Kto,
            Self::Ratings | Self::NemoRegression => Task::Regression,
        }
    }

    /// Returns how many rows make one example.
    pub(super) fn rows(self) -> usize {
        if self == Self::NemoComparisons { 2 } else { 1 }
    }
}

/// A command that trains on data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// `rollforge sft`.
    Sft,
    /// `rollforge rm`.
    Rm,
    /// `rollforge regression`.
    Regression,
    /// `rollforge dpo`.
    Dpo,
    /// `rollforge kto`.
    Kto,
    /// `rollforge ppo`.
    Ppo,
}

impl Task {
    /// Returns the form of rows that the command reads.
    pub fn form(self) -> Form {
        match self {
            Self::Sft => Form::Sft,
            Self::Rm | Self::Dpo => Form::Preference,
            Self::Regression => Form::Ratings,
            Self::Kto => Form::Unpaired,
            Self::Ppo => Form::Prompts,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sft => "sft",
            Self::Rm => "rm",
            Self::Regression => "regression",
            Self::Dpo => "dpo",
            Self::Kto => "kto",
            Self::Ppo => "ppo",
        })
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is of no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {expected}, got {got:?}")]
pub struct UnknownName {
    pub(super) expected: String,
    pub(super) got: String,
}

impl FromStr for Schema {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|schema| schema.name() == name).ok_or_else(|| UnknownName {
            expected: Self::ALL.map(Self::name).join(", "),
            got: name.into(),
        })
    }
}

fn is_nemo_turn(turn: &Value) -> bool {
    turn.get("from").is_some_and(Value::is_string) && turn.get("value").is_some()
}

#[cfg(test)]
mod tests;
