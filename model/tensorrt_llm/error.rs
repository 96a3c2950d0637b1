//! What can be wrong between a model and TensorRT-LLM.

use crate::rollout::CoverageError;

/// An error of the weight map or of a TensorRT-LLM directory. One line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model cannot be cut that way, or TensorRT-LLM has no such model.
    #[error("{field} must be {rule}, got {got}")]
    Layout {
        /// The field, of the layout or of the model.
        field: &'static str,
        /// What it must be.
        rule: String,
        /// What it was.
        got: String,
    },
    /// A tensor cannot be used.
    #[error("tensor {tensor} {problem}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A rank's tensors are not those of the layout.
    #[error("rank {rank}: {reason}")]
    Coverage {
        /// The rank.
        rank: usize,
        /// Which tensors.
        reason: CoverageError,
    },
    /// A file or directory cannot be used.
    #[error(transparent)]
    Files(#[from] crate::model::Error),
}

/// What functions of this module return.
pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn tensor(tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor { tensor: tensor.to_owned(), problem: problem.into() }
    }
}

/// Returns the error of a rule unless it holds.
pub(super) fn rule(
    holds: bool,
    field: &'static str,
    rule: impl Into<String>,
    got: impl ToString,
) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Layout { field, rule: rule.into(), got: got.to_string() })
}
