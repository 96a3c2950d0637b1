//! Examples as the rows that our loaders read.

use std::{fmt, str::FromStr};

use serde_json::{Map, Value};

use super::{
    super::{attributes::Attributes, row::Content},
    Example, Meaning, UnknownName,
    example::{last_answer, value},
};

/// Columns that a loader would take for something else than an extra one. One that is left over from another schema gets
/// `source_` before its name.
const LOADED: [&str; 14] = [
    "text",
    "messages",
    "prompt",
    "input",
    "completion",
    "output",
    "chosen",
    "rejected",
    "chosen_response",
    "rejected_response",
    "margin",
    "chosen_reward",
    "rejected_reward",
    "label",
];

/// What a data set is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text`, `messages`, or `prompt` and `completion`: for `rollforge sft`. Of a pair it is the chosen one; a
    /// completion that is said to be bad is refused.
    Sft,
    /// `prompt`, and every other column for reward functions: for `rollforge ppo`. What the data answer stays as
    /// `completion`.
    Prompts,
    /// `prompt` (where there is one), `chosen`, `rejected`, `margin`, `chosen_reward`, `rejected_reward`: for `rollforge
    /// rm` and `rollforge dpo`.
    Preference,
    /// `prompt`, `completion`, `label`: each completion by itself, good or bad: for `rollforge kto`. A pair gives two
    /// rows.
    Unpaired,
    /// `text`, or `messages`, or `prompt` and `completion`, with a column for each attribute that is rated.
    Ratings,
    /// `prompt`, which names the attributes of the answer ([`Attributes`]), and `completion`: for `rollforge sft`. Of a
    /// conversation the last turn is the completion.
    SteerLm,
}

type Columns = Map<String, Value>;

impl Form {
    /// Every form.
    pub const ALL: [Self; 6] =
        [Self::Sft, Self::Prompts, Self::Preference, Self::Unpaired, Self::Ratings, Self::SteerLm];

    /// Returns its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Prompts => "prompts",
            Self::Preference => "preference",
            Self::Unpaired => "unpaired",
            Self::Ratings => "ratings",
            Self::SteerLm => "steerlm",
        }
    }

    /// Writes an example as rows, at least one.
    ///
    /// # Errors
    /// Says what the example lacks; the words are the same for all examples with the same flaw.
    pub(in crate::data) fn write(self, example: Example) -> Result<Vec<Columns>, String> {
        let Example { meaning, mut ratings, mut rest } = example;
        if let (Meaning::Pair { rewards, .. }, true) = (&meaning, self != Self::Preference) {
            rest.extend(rewards.clone());
        }
        let rows = match self {
            Self::Sft => vec![sft(meaning)?],
            Self::Prompts => vec![prompt(meaning)?],
            Self::Preference => vec![preference(meaning)?],
            Self::Unpaired => unpaired(meaning)?,
            Self::Ratings if ratings.is_empty() => return Err("has no rating".into()),
            Self::Ratings => vec![sft(meaning)?],
            // The prompt has them now.
            Self::SteerLm => vec![steered(meaning, &std::mem::take(&mut ratings))?],
        };
        let complete = |mut row: Columns| {
            for (name, value) in ratings.iter().chain(&rest) {
                let taken = LOADED.contains(&name.as_str()) || row.contains_key(name);
                let name = if taken { format!("source_{name}") } else { name.clone() };
                row.insert(name, value.clone());
            }
            row
        };
        Ok(rows.into_iter().map(complete).collect())
    }
}

fn columns<const N: usize>(columns: [(&str, Value); N]) -> Columns {
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn sft(meaning: Meaning) -> Result<Columns, String> {
    match meaning {
        Meaning::Text(text) => Ok(columns([("text", text.into())])),
        Meaning::Conversation(messages) => Ok(columns([("messages", messages.into())])),
        Meaning::Prompt(_) => Err("has a prompt, but no completion".into()),
        Meaning::Completion { good: Some(false), .. } => {
            Err("its completion is marked as a bad one".into())
        }
        Meaning::Completion { prompt, completion, .. }
        | Meaning::Pair { prompt: Some(prompt), chosen: completion, .. } => {
            Ok(columns([("prompt", prompt), ("completion", completion)]))
        }
        Meaning::Pair { prompt: None, chosen, .. } => {
            let column = if chosen.is_array() { "messages" } else { "text" };
            Ok(columns([(column, chosen)]))
        }
    }
}

fn prompt(meaning: Meaning) -> Result<Columns, String> {
    match meaning {
        Meaning::Text(text) => Ok(columns([("prompt", text.into())])),
        Meaning::Prompt(prompt) | Meaning::Pair { prompt: Some(prompt), .. } => {
            Ok(columns([("prompt", prompt)]))
        }
        Meaning::Completion { prompt, completion, .. } => {
            Ok(columns([("prompt", prompt), ("completion", text_of(completion))]))
        }
        Meaning::Conversation(messages) => match last_answer(&messages) {
            Some((before, answer)) => {
                Ok(columns([("prompt", before.into()), ("completion", answer["content"].clone())]))
            }
            None if messages.last().is_some_and(|last| last["role"] != "assistant") => {
                Ok(columns([("prompt", messages.into())]))
            }
            None => Err("conversation has nothing before the assistant's turn".into()),
        },
        Meaning::Pair { prompt: None, .. } => Err("has no prompt of its own".into()),
    }
}

fn preference(meaning: Meaning) -> Result<Columns, String> {
    let Meaning::Pair { prompt, chosen, rejected, rewards } = meaning else {
        return Err("is not a pair of a chosen and a rejected completion".into());
    };
    let mut row = prompt.map_or_else(Columns::new, |prompt| columns([("prompt", prompt)]));
    row.extend(columns([("chosen", chosen), ("rejected", rejected)]));
    row.extend(rewards);
    Ok(row)
}

fn unpaired(meaning: Meaning) -> Result<Vec<Columns>, String> {
    let row = |prompt: Value, completion: Value, good: bool| {
        columns([("prompt", prompt), ("completion", completion), ("label", good.into())])
    };
    match meaning {
        Meaning::Completion { prompt, completion, good: Some(good) } => {
            Ok(vec![row(prompt, completion, good)])
        }
        Meaning::Pair { prompt: Some(prompt), chosen, rejected, .. } => {
            Ok(vec![row(prompt.clone(), chosen, true), row(prompt, rejected, false)])
        }
        Meaning::Pair { .. } => Err("has no prompt of its own".into()),
        _ => Err("does not say whether its completion is a good one".into()),
    }
}

/// Puts the attributes of a completion into its prompt: its ratings, or what NeMo-Aligner's `label` of the answer says.
fn steered(meaning: Meaning, ratings: &Columns) -> Result<Columns, String> {
    let (prompt, completion, label) = match meaning {
        Meaning::Completion { good: Some(false), .. } => {
            return Err("its completion is marked as a bad one".into());
        }
        Meaning::Completion { prompt, completion, .. } => (prompt, completion, None),
        Meaning::Conversation(mut messages) => match last_answer(&messages) {
            None => return Err("conversation must end with the assistant's answer".into()),
            Some(_) => {
                let mut answer = messages.pop().unwrap_or_default();
                let label = answer.as_object_mut().and_then(|turn| turn.shift_remove("label"));
                (Value::Array(messages), Value::Array(vec![answer]), label)
            }
        },
        _ => return Err("does not say what of it is the prompt".into()),
    };
    let attributes = match label.as_ref().and_then(Value::as_str) {
        Some(label) if ratings.is_empty() => Attributes::parse(label)?,
        _ => Attributes::of_ratings(ratings)?,
    };
    let prompt = match prompt {
        Value::String(text) => Content::Text(text),
        Value::Array(messages) => Content::Messages(messages),
        _ => return Err("does not say what of it is the prompt".into()),
    };
    let prompt = value(attributes.within(prompt)?);
    Ok(columns([("prompt", prompt), ("completion", completion)]))
}

/// Returns the text of a single message, for what reads a column reads text.
fn text_of(completion: Value) -> Value {
    match completion.as_array().map(Vec::as_slice) {
        Some([message]) if message["content"].is_string() => message["content"].clone(),
        _ => completion,
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Form {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        Self::ALL.into_iter().find(|form| form.name() == name).ok_or_else(|| UnknownName {
            expected: Self::ALL.map(Self::name).join(", "),
            got: name.into(),
        })
    }
}
