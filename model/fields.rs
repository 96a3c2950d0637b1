//! Typed access to a JSON object's keys, with errors that name file, key, rule and value.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Error, error::Result};

/// A JSON object and the file it is from. `null` counts as absent, as in transformers.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    pub(super) object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// Returns a value that is there and not `null`.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Returns a count between 1 and `most`.
    pub(super) fn size(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let read = |value: &Value| {
            // Python writes some sizes as 32768.0.
            let number = value.as_u64().or_else(|| {
                value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64)
            })?;
            usize::try_from(number).ok().filter(|n| (1..=most).contains(n))
        };
        self.typed(key, &format!("a whole number from 1 to {most}"), read)
    }

    /// Returns a count that must be there.
    pub(super) fn required_size(&self, key: &str, most: usize) -> Result<usize> {
        self.size(key, most)?.ok_or_else(|| Error::file(self.path, format!("{key} is missing")))
    }

    /// Returns a finite number above zero.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>> {
        let rule = "a finite number above 0";
        self.typed(key, rule, |v| v.as_f64().filter(|n| n.is_finite() && *n > 0.0))
    }

    /// Returns a finite number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a finite number", |v| v.as_f64().filter(|n| n.is_finite()))
    }

    /// Returns a truth value.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// Returns a string.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    /// Returns an object.
    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let found = self.typed(key, "an object", Value::as_object)?;
        Ok(found.map(|object| Fields { path: self.path, object }))
    }

    /// Returns a list.
    pub(super) fn list(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.typed(key, "a list", Value::as_array)
    }

    /// Returns a token id. Old configurations say -1 for none.
    pub(super) fn token(&self, key: &str) -> Result<Option<u32>> {
        if self.get(key).and_then(Value::as_i64) == Some(-1) {
            return Ok(None);
        }
        self.typed(key, "a token id", as_token)
    }

    /// Returns one token id or several.
    pub(super) fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let read = |value: &Value| match value {
            Value::Array(list) => list.iter().map(as_token).collect(),
            single => as_token(single).map(|id| vec![id]),
        };
        Ok(self.typed(key, "a token id or a list of them", read)?.unwrap_or_default())
    }

    /// Returns the error that says how a value breaks a rule.
    pub(super) fn broken(&self, key: &str, rule: &str) -> Error {
        Error::Field {
            path: self.path.to_owned(),
            field: key.to_owned(),
            rule: rule.to_owned(),
            got: self.shown(key),
        }
    }

    /// Returns the error that says that a value is known but not supported.
    pub(super) fn unsupported(&self, key: &str, supported: &str) -> Error {
        Error::Unsupported {
            path: self.path.to_owned(),
            field: key.to_owned(),
            got: self.shown(key),
            supported: supported.to_owned(),
        }
    }

    fn typed<T>(
        &self,
        key: &str,
        rule: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(key).map(|value| read(value).ok_or_else(|| self.broken(key, rule))).transpose()
    }

    fn shown(&self, key: &str) -> String {
        let text = self.object.get(key).map_or("nothing".to_owned(), Value::to_string);
        // A whole vocabulary does not belong into a message.
        if text.chars().count() > 80 {
            text.chars().take(77).chain("...".chars()).collect()
        } else {
            text
        }
    }
}

fn as_token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
