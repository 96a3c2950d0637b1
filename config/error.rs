//! What can be wrong with a configuration.

use std::{io, path::PathBuf};

/// A configuration that cannot be used. One line, which starts with the place: `run.toml:12:3: ...`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in it breaks a rule.
    #[error("{place}: {message}")]
    Invalid {
        /// `file:line:column`, `override "key=value"`, or the file alone where no line is to blame.
        place: String,
        /// The key, the rule, and what was found.
        message: String,
    },
}

/// A value that breaks a rule which its type alone cannot express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} must be {rule}, got {got}")]
pub struct Violation {
    /// The dotted key to blame, such as `ppo.mini_batches`.
    pub key: String,
    /// What it must be.
    pub rule: String,
    /// What it is.
    pub got: String,
}

impl Violation {
    /// Names a key, its rule and what it got.
    pub fn new(key: impl Into<String>, rule: impl Into<String>, got: impl ToString) -> Self {
        Self { key: key.into(), rule: rule.into(), got: got.to_string() }
    }

    /// Returns `Ok` where `holds` is true, the violation where it is not.
    ///
    /// # Errors
    /// When `holds` is false.
    pub fn unless(
        holds: bool,
        key: impl Into<String>,
        rule: impl Into<String>,
        got: impl ToString,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::new(key, rule, got)) }
    }
}
