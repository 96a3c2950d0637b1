//! One row of a data file: named columns, and the place it came from.

use std::{fmt, path::Path, sync::Arc};

use serde_json::{Map, Value};

/// Where a row stands: `train.jsonl:17`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The line, or in Parquet the row, counted from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it stands.
    pub place: Place,
    /// Its columns, in the order of the file.
    pub columns: Map<String, Value>,
}

/// A column's content in TRL's two kinds, "standard" and "conversational".
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// Plain text.
    Text(String),
    /// A conversation: objects with a `role`, as the chat template wants them.
    Messages(Vec<Value>),
}

impl Content {
    /// Returns what the row held.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Text(text) => Value::from(text.as_str()),
            Self::Messages(messages) => Value::Array(messages.clone()),
        }
    }
}

impl Row {
    /// Takes a column's text or messages out of the row.
    ///
    /// # Errors
    /// When the column is missing, empty, or neither text nor messages.
    pub(super) fn take_content(&mut self, column: &str) -> Result<Content, String> {
        match self.take(column)? {
            Value::String(text) if text.is_empty() => Err(format!("column {column:?} is empty")),
            Value::String(text) => Ok(Content::Text(text)),
            Value::Array(messages) if messages.is_empty() => {
                Err(format!("column {column:?} is empty"))
            }
            Value::Array(messages) if messages.iter().all(is_message) => {
                Ok(Content::Messages(messages))
            }
            // NeMo's preference rows hold the answer as one message, without the list around it.
            message @ Value::Object(_) if is_message(&message) => {
                Ok(Content::Messages(vec![message]))
            }
            _ => Err(format!("column {column:?} must be text or a list of {{role, content}}")),
        }
    }

    /// Takes a column's text out of the row.
    ///
    /// # Errors
    /// When the column is missing, empty, or not text.
    pub(super) fn take_text(&mut self, column: &str) -> Result<String, String> {
        match self.take_content(column)? {
            Content::Text(text) => Ok(text),
            Content::Messages(_) => Err(format!("column {column:?} must be text")),
        }
    }

    /// Takes a column's conversation out of the row.
    ///
    /// # Errors
    /// When the column is missing, empty, or not a list of messages.
    pub(super) fn take_messages(&mut self, column: &str) -> Result<Vec<Value>, String> {
        match self.take_content(column)? {
            Content::Messages(messages) => Ok(messages),
            Content::Text(_) => {
                Err(format!("column {column:?} must be a list of {{role, content}}"))
            }
        }
    }

    /// Takes a column's number out of the row; `None` where the row has none.
    ///
    /// # Errors
    /// When it is not a finite number.
    pub(super) fn take_number(&mut self, column: &str) -> Result<Option<f32>, String> {
        match self.columns.shift_remove(column) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_f64().map(|number| number as f32);
                let finite = number.filter(|number| number.is_finite());
                finite.map(Some).ok_or_else(|| format!("column {column:?} must be a finite number"))
            }
        }
    }

    /// Takes a column's label out of the row: `true` or `false` (TRL), `"chosen"` or `"rejected"` (NeMo).
    ///
    /// # Errors
    /// When it is missing, or none of these.
    pub(super) fn take_label(&mut self, column: &str) -> Result<bool, String> {
        match self.take(column)? {
            Value::Bool(label) => Ok(label),
            Value::String(label) if label == "chosen" => Ok(true),
            Value::String(label) if label == "rejected" => Ok(false),
            _ => Err(format!("column {column:?} must be true, false, \"chosen\" or \"rejected\"")),
        }
    }

    /// Takes a column's list of objects out of the row.
    ///
    /// # Errors
    /// When it is missing, or no such list.
    pub(super) fn take_objects(&mut self, column: &str) -> Result<Vec<Map<String, Value>>, String> {
        let wrong = || format!("column {column:?} must be a list of objects");
        let Value::Array(list) = self.take(column)? else { return Err(wrong()) };
        let object = |value| match value {
            Value::Object(object) => Ok(object),
            _ => Err(wrong()),
        };
        list.into_iter().map(object).collect()
    }

    /// Returns the first of these names that the row has a column of.
    ///
    /// # Errors
    /// When it has none.
    pub(super) fn one_of<'n>(&self, names: [&'n str; 2]) -> Result<&'n str, String> {
        let found = names.into_iter().find(|name| self.columns.contains_key(*name));
        found.ok_or_else(|| format!("a response has neither {:?} nor {:?}", names[0], names[1]))
    }

    fn take(&mut self, column: &str) -> Result<Value, String> {
        match self.columns.shift_remove(column) {
            None | Some(Value::Null) => Err(format!("has no column {column:?}")),
            Some(value) => Ok(value),
        }
    }
}

fn is_message(value: &Value) -> bool {
    value.get("role").is_some_and(Value::is_string)
}
