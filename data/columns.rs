//! Which of a file's columns holds what.

use std::path::Path;

use super::{Error, Row};

/// What a column can hold, under the names it goes by: TRL's first, then NeMo's. After those, names that are not taken
/// without being asked for, but are probably what was meant.
struct Role {
    setting: &'static str,
    names: &'static [&'static str],
    likely: &'static [&'static str],
}

const ROLES: [Role; 11] = [
    Role { setting: "text", names: &["text"], likely: &["content", "document", "body"] },
    Role { setting: "messages", names: &["messages"], likely: &["conversations", "conversation"] },
    Role {
        setting: "prompt",
        names: &["prompt", "input"],
        likely: &["question", "query", "instruction", "problem"],
    },
    Role {
        setting: "completion",
        names: &["completion", "output"],
        likely: &["response", "answer", "target", "solution"],
    },
    Role { setting: "chosen", names: &["chosen", "chosen_response"], likely: &["preferred"] },
    Role {
        setting: "rejected",
        names: &["rejected", "rejected_response"],
        likely: &["dispreferred"],
    },
    Role { setting: "label", names: &["label", "preference"], likely: &["desirable"] },
    Role { setting: "responses", names: &["responses"], likely: &["completions"] },
    Role { setting: "margin", names: &["margin"], likely: &[] },
    Role { setting: "chosen_reward", names: &["chosen_reward"], likely: &[] },
    Role { setting: "rejected_reward", names: &["rejected_reward"], likely: &[] },
];

/// The columns that a file has, by name.
#[derive(Clone, Debug)]
pub struct FoundColumns<'a> {
    path: &'a Path,
    names: Vec<&'a str>,
}

impl<'a> FoundColumns<'a> {
    /// Lists the columns of all rows, in the order of their first appearance.
    pub(super) fn of(path: &'a Path, rows: &'a [Row]) -> Self {
        let mut seen = std::collections::HashSet::new();
        let all = rows.iter().flat_map(|row| row.columns.keys().map(String::as_str));
        Self { path, names: all.filter(|name| seen.insert(*name)).collect() }
    }

    /// Takes the names of a file's columns, each once.
    pub(super) fn named(path: &'a Path, names: &'a [String]) -> Self {
        Self { path, names: names.iter().map(String::as_str).collect() }
    }

    /// Returns the column for a setting of `[data.columns]`: the one it names, or one of the usual names.
    ///
    /// # Errors
    /// When a column is asked for by name and is not there.
    pub(super) fn optional(
        &self,
        setting: &str,
        asked: Option<&String>,
    ) -> Result<Option<String>, Error> {
        match asked {
            Some(name) if self.names.contains(&name.as_str()) => Ok(Some(name.clone())),
            Some(name) => {
                let hint = self.similar(name).map(|near| format!("; did you mean {near:?}?"));
                Err(self
                    .error(format!("{name:?} (data.columns.{setting})"), hint.unwrap_or_default()))
            }
            None => {
                let usual = role(setting).names.iter().find(|name| self.names.contains(name));
                Ok(usual.map(ToString::to_string))
            }
        }
    }

    /// Says whether there is a column of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    /// Returns the column for a setting, which must be there.
    ///
    /// # Errors
    /// When it is not; the error names the columns there are, and the likely one.
    pub(super) fn required(&self, setting: &str, asked: Option<&String>) -> Result<String, Error> {
        self.optional(setting, asked)?.ok_or_else(|| self.missing(&[setting]))
    }

    /// Checks that a column is there which cannot have another name.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn fixed(&self, name: &str) -> Result<(), Error> {
        match self.names.contains(&name) {
            true => Ok(()),
            false => Err(self.error(format!("{name:?}"), String::new())),
        }
    }

    /// Returns the error that none of these settings has a column.
    pub(super) fn missing(&self, settings: &[&str]) -> Error {
        let wanted: Vec<String> =
            settings.iter().map(|setting| format!("{:?}", role(setting).names[0])).collect();
        let hint = settings.iter().find_map(|setting| self.likely(setting)).unwrap_or_default();
        self.error(wanted.join(" or "), hint)
    }

    fn likely(&self, setting: &str) -> Option<String> {
        let role = role(setting);
        let known = role.likely.iter().copied().find(|name| self.names.contains(name));
        let name = known.or_else(|| self.similar(role.names[0]))?;
        Some(format!("; if {name:?} is it, set data.columns.{setting} = {name:?}"))
    }

    fn similar(&self, wanted: &str) -> Option<&'a str> {
        let alike = |name: &&&str| {
            strsim::normalized_damerau_levenshtein(&wanted.to_lowercase(), &name.to_lowercase())
                >= 0.6
        };
        self.names.iter().find(alike).copied()
    }

    fn error(&self, wanted: String, hint: String) -> Error {
        let quoted: Vec<String> =
            self.names.iter().take(12).map(|name| format!("{name:?}")).collect();
        let more = self.names.len().saturating_sub(12);
        let found = match (quoted.is_empty(), more) {
            (true, _) => "none".into(),
            (_, 0) => quoted.join(", "),
            _ => format!("{} and {more} more", quoted.join(", ")),
        };
        Error::Column { path: self.path.into(), wanted, found, hint }
    }
}

fn role(setting: &str) -> &'static Role {
    ROLES.iter().find(|role| role.setting == setting).expect("settings are written in this crate")
}
