//! What can go wrong in the trainer.

use super::config::OptionError;

/// An error of the trainer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option breaks a rule.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// What is to be trained on breaks a rule.
    #[error("{what} must be {rule}, got {got}")]
    Input {
        /// Which thing, named so that it can be found.
        what: String,
        /// What it must be.
        rule: &'static str,
        /// What it was.
        got: String,
    },
    /// A gradient is infinite or not a number. It is gone, and no weight has moved.
    #[error(transparent)]
    NotFinite(Box<dyn std::error::Error + Send + Sync>),
    /// The model could not compute or learn.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Makes an error about something to be trained on.
    pub(super) fn input(what: impl Into<String>, rule: &'static str, got: impl ToString) -> Self {
        Self::Input { what: what.into(), rule, got: got.to_string() }
    }
}
