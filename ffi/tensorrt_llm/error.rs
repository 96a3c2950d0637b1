//! What calls across the border fail with.

/// Why a call failed, as `contract.h` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// An argument breaks a rule: nothing was done.
    InvalidArgument,
    /// The object is in no state for this call: nothing was done.
    InvalidState,
    /// The capability is missing.
    Unsupported,
    /// Host or device memory is used up.
    OutOfMemory,
    /// A refit failed and some tensors may already be new: the engine must not generate again.
    RefitPartial,
    /// Versions do not go together, or are not supported.
    Version,
    /// Anything else that was thrown.
    Internal,
    /// A number this build does not know.
    Other(i32),
}

/// A call across the border failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {message}")]
pub struct Error {
    /// Which call.
    pub call: &'static str,
    /// Why.
    pub status: Status,
    /// The other side's sentence.
    pub message: String,
}
