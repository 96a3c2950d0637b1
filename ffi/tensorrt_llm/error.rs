//! What calls across the border fail with.

use super::contract;

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

impl From<i32> for Status {
    fn from(status: i32) -> Self {
        match u32::try_from(status) {
            Ok(contract::RF_INVALID_ARGUMENT) => Self::InvalidArgument,
            Ok(contract::RF_INVALID_STATE) => Self::InvalidState,
            Ok(contract::RF_UNSUPPORTED) => Self::Unsupported,
            Ok(contract::RF_OUT_OF_MEMORY) => Self::OutOfMemory,
            Ok(contract::RF_REFIT_PARTIAL) => Self::RefitPartial,
            Ok(contract::RF_VERSION) => Self::Version,
            Ok(contract::RF_INTERNAL) => Self::Internal,
            _ => Self::Other(status),
        }
    }
}

impl Error {
    /// Makes a failed call of what `bridge.cc` threw: the status as a number, a blank, the sentence. Other exceptions
    /// (of cxx, or of the C++ library) are sentences alone.
    pub(super) fn thrown(call: &'static str, thrown: &cxx::Exception) -> Self {
        let what = thrown.what();
        let parts = what.split_once(' ');
        match parts.and_then(|(status, message)| Some((status.parse::<i32>().ok()?, message))) {
            Some((status, message)) => {
                Self { call, status: status.into(), message: message.to_string() }
            }
            None => Self { call, status: Status::Internal, message: what.to_string() },
        }
    }

    /// Makes the error of a call that was refused on this side of the border.
    pub(super) fn argument(call: &'static str, message: String) -> Self {
        Self { call, status: Status::InvalidArgument, message }
    }

    /// Makes the error of a path that cannot cross the border.
    pub(super) fn path(call: &'static str, path: &std::path::Path) -> Self {
        Self::argument(call, format!("{} is no UTF-8", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_unknown_to_this_build_keeps_its_number() {
        assert_eq!(Status::from(5), Status::RefitPartial);
        assert_eq!(Status::from(99), Status::Other(99));
        assert_eq!(Status::from(-1), Status::Other(-1));
    }
}
