//! Weights on their way into an engine.

use super::{Error, contract};
use crate::ffi::memory::{Memory, Reading};

/// The number format of an engine's tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
    /// One this build does not know.
    Other(i32),
}

/// A refittable tensor of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightInfo {
    /// TensorRT's name for it.
    pub name: String,
    /// The number format.
    pub dtype: DataType,
    /// Number of elements.
    pub count: usize,
}

/// An engine that takes weights: that of a running [`Executor`](super::Executor), or a [`Plan`](super::Plan).
pub trait Bindable {
    /// Lists every refittable tensor.
    ///
    /// # Errors
    /// When the engine cannot be refitted.
    fn weights(&mut self) -> Result<Vec<WeightInfo>, Error>;

    /// Says where a tensor's new values lie; keeps the memory alive until the name is bound anew. Host or device memory,
    /// as [`Memory::location`] says.
    ///
    /// # Errors
    /// For a wrong name, dtype or number of elements.
    fn bind(&mut self, name: &str, dtype: DataType, values: &Memory) -> Result<(), Error>;

    /// Puts the values of every bound name into the engine and waits until that is done. `readings` hold the leases of all
    /// bound memory, so that nobody writes meanwhile. Device work queued before is ordered before it.
    ///
    /// # Errors
    /// [`Status::RefitPartial`](super::Status::RefitPartial) when some tensors may be new already.
    ///
    /// # Panics
    /// If a bound memory's lease is not among the readings.
    fn commit(&mut self, readings: &[&Reading]) -> Result<(), Error>;
}

impl From<i32> for DataType {
    fn from(dtype: i32) -> Self {
        match u32::try_from(dtype) {
            Ok(contract::RF_F32) => Self::F32,
            Ok(contract::RF_F16) => Self::F16,
            Ok(contract::RF_BF16) => Self::Bf16,
            _ => Self::Other(dtype),
        }
    }
}

impl From<DataType> for i32 {
    fn from(dtype: DataType) -> Self {
        match dtype {
            DataType::F32 => contract::RF_F32 as Self,
            DataType::F16 => contract::RF_F16 as Self,
            DataType::Bf16 => contract::RF_BF16 as Self,
            DataType::Other(number) => number,
        }
    }
}
