//! Which implementation of the contract there is, and what it can do.

use super::{Error, bridge, contract};

/// An implementation of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Library {
    /// The shim: over TensorRT-LLM where this build was linked to it, over a stand-in for tests elsewhere.
    TensorRtLlm,
    /// The contract double: a small transformer on the CPU.
    Double,
}

/// What an implementation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name; one that is not the real TensorRT-LLM says so in it.
    pub name: String,
    /// Version of TensorRT-LLM that runs, and of the headers it was compiled against.
    pub trtllm: String,
    /// Version of the headers.
    pub trtllm_headers: String,
    /// Version of TensorRT that runs; empty where there is none.
    pub tensorrt: String,
    /// Version of its headers.
    pub tensorrt_headers: String,
    /// A sentence on a version that works but is not supported.
    pub warning: Option<String>,
    /// A sentence on why this version is refused, and what to install.
    pub refusal: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it is anything but the real TensorRT-LLM.
    pub is_double: bool,
}

/// What an implementation can do, as bits of `contract.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Tier A: the live engine takes weights.
    pub const REFIT_IN_PLACE: Self = Self(contract::RF_CAN_REFIT_IN_PLACE as u64);
    /// Tier C: a plan is refitted, serialised and run anew.
    pub const REBUILD: Self = Self(contract::RF_CAN_REBUILD as u64);
    /// Weights may lie in host memory.
    pub const REFIT_FROM_HOST: Self = Self(contract::RF_CAN_REFIT_FROM_HOST as u64);
    /// Weights may lie in device memory.
    pub const REFIT_FROM_DEVICE: Self = Self(contract::RF_CAN_REFIT_FROM_DEVICE as u64);
    /// Requests carry a salt that keeps KV blocks of other salts away.
    pub const CACHE_SALT: Self = Self(contract::RF_CAN_CACHE_SALT as u64);
    /// A request may ask for several sequences.
    pub const RETURN_SEQUENCES: Self = Self(contract::RF_CAN_RETURN_SEQUENCES as u64);
    /// min-p sampling.
    pub const MIN_P: Self = Self(contract::RF_CAN_MIN_P as u64);
    /// Cancelled and timed-out sequences say so.
    pub const REPORT_CANCEL: Self = Self(contract::RF_CAN_REPORT_CANCEL as u64);
    /// Requests may carry a time limit.
    pub const ALLOTTED_TIME: Self = Self(contract::RF_CAN_ALLOTTED_TIME as u64);

    /// Says whether every bit of `wanted` is there.
    pub fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// Returns the name of each bit that is there.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (Self::REFIT_IN_PLACE, "refit in place"),
            (Self::REBUILD, "rebuild"),
            (Self::REFIT_FROM_HOST, "refit from host memory"),
            (Self::REFIT_FROM_DEVICE, "refit from device memory"),
            (Self::CACHE_SALT, "cache salt"),
            (Self::RETURN_SEQUENCES, "several sequences"),
            (Self::MIN_P, "min-p"),
            (Self::REPORT_CANCEL, "cancel is reported"),
            (Self::ALLOTTED_TIME, "time limits"),
        ];
        all.into_iter().filter(|&(bit, _)| self.contains(bit)).map(|(_, name)| name).collect()
    }
}

impl Library {
    /// Says what this implementation is, without loading a model.
    ///
    /// # Errors
    /// When it does not speak this version of the contract.
    pub fn describe(self) -> Result<Description, Error> {
        let found = bridge::describe(self.is_double())
            .map_err(|thrown| Error::thrown("describe", &thrown))?;
        let sentence = |text: String| (!text.is_empty()).then_some(text);
        Ok(Description {
            name: found.name,
            trtllm: found.trtllm_version,
            trtllm_headers: found.trtllm_headers,
            tensorrt: found.tensorrt_version,
            tensorrt_headers: found.tensorrt_headers,
            warning: sentence(found.warning),
            refusal: sentence(found.refusal),
            capabilities: Capabilities(found.capabilities),
            is_double: found.is_double,
        })
    }

    /// Says which table of functions is meant.
    pub(super) fn is_double(self) -> bool {
        self == Self::Double
    }
}
