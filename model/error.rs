//! What can be wrong with a model directory. Every message is one line that names the file.

use std::path::{Path, PathBuf};

use crate::rollout::CoverageError;

/// An error about a model directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {}: {reason}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// A file cannot be understood.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A value breaks a rule.
    #[error("{}: {field} must be {rule}, got {got}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The key.
        field: String,
        /// What it must be.
        rule: String,
        /// What it was.
        got: String,
    },
    /// The model is of a kind that this program cannot compute.
    #[error("{}: {field} {got} is not supported; supported: {supported}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key.
        field: String,
        /// What it was.
        got: String,
        /// What could be used instead.
        supported: String,
    },
    /// A tensor cannot be used.
    #[error("{}: tensor {} {problem}", path.display(), tensor.escape_debug())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The tensors are not those of the model.
    #[error("{}: {reason}", path.display())]
    Coverage {
        /// The directory.
        path: PathBuf,
        /// Which tensors.
        reason: CoverageError,
    },
    /// A directory would be overwritten.
    #[error("{} exists already; choose another directory or remove it", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// The chat template refused the conversation, or is itself wrong.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// Text could not be turned into tokens or back.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The specification of a new model breaks a rule.
    #[error("{field} must be {rule}, got {got}")]
    Spec {
        /// The key.
        field: String,
        /// What it must be.
        rule: String,
        /// What it was.
        got: String,
    },
    /// Somebody kept writing to weights that were to be read.
    #[error("waited {seconds} s for the trainer to finish writing the weights")]
    Busy {
        /// How long.
        seconds: u64,
    },
}

/// What functions of this module return.
pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |reason| Self::Io { action, path: path.to_owned(), reason }
    }

    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), problem: problem.into() }
    }

    pub(super) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), problem: problem.into() }
    }
}
