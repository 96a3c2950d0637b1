//! What can go wrong in the trainer's libtorch part.

use crate::{
    rollout::CoverageError,
    trainer::config::{Device, OptionError},
};

/// An error of the part that computes with libtorch.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// libtorch refused an operation: most often there is no memory left.
    #[error("libtorch: {}", first_line(.0))]
    Libtorch(#[from] tch::TchError),
    /// The weights are not those of the model.
    #[error(transparent)]
    Coverage(#[from] CoverageError),
    /// A weight, or a gradient, is infinite or not a number.
    #[error("{what} of {tensor} must be finite, got {got} at element {index}")]
    NotFinite {
        /// Weight or gradient.
        what: &'static str,
        /// The tensor's name.
        tensor: String,
        /// Which element, counted row by row.
        index: usize,
        /// Its value.
        got: f64,
    },
    /// The gradient as a whole is too large to be measured.
    #[error("gradient norm must be finite in f32, got {got}")]
    GradientNorm {
        /// Its norm.
        got: f64,
    },
    /// An input breaks a rule.
    #[error("{field} must be {rule}, got {got}")]
    Input {
        /// Which input.
        field: &'static str,
        /// What it must be.
        rule: String,
        /// What it was.
        got: String,
    },
    /// An option breaks a rule.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The device cannot be used.
    #[error("device {device} cannot be used: {reason}")]
    Device {
        /// The device asked for.
        device: Device,
        /// Why not, and what would help.
        reason: String,
    },
    /// The system gives no more threads.
    #[error("the trainer cannot start {threads} threads: {error}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system said.
        error: std::io::Error,
    },
    /// Somebody went on reading the weights.
    #[error(
        "the trainer waited {seconds:.1} s to write its weights: a reader of them did not let go"
    )]
    Deadline {
        /// How long it waited.
        seconds: f64,
    },
}

impl Error {
    pub(crate) fn input(field: &'static str, rule: impl Into<String>, got: impl ToString) -> Self {
        Self::Input { field, rule: rule.into(), got: got.to_string() }
    }
}

/// libtorch appends a C++ stack trace, which helps nobody here.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().to_owned()
}
