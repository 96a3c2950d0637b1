//! Backends, as they are called on the command line.

use clap::ValueEnum;

use crate::engine::BackendKind;

/// A backend, by the name that configurations use, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BackendName {
    /// The embedded engine, on the CPU
    Native,
    /// TensorRT-LLM
    #[value(name = "tensorrt-llm")]
    TensorRtLlm,
}

impl BackendName {
    /// Returns the backend itself.
    pub(super) fn kind(self) -> BackendKind {
        match self {
            Self::Native => BackendKind::Native,
            Self::TensorRtLlm => BackendKind::TensorRtLlm,
        }
    }
}
