//! A plan that nothing runs: refitted and serialised, it becomes the next executor.

use std::{fmt, path::Path};

use cxx::UniquePtr;

use super::{Bindable, DataType, Error, Library, WeightInfo, bridge, refit};
use crate::ffi::memory::{Memory, Reading};

/// An engine file (`rankN.engine`) in memory.
pub struct Plan {
    // Before what is bound: the refitter goes first.
    inner: UniquePtr<bridge::Plan>,
    bound: refit::Bound,
}

impl Plan {
    /// Loads an engine file.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn load(library: Library, file: &Path) -> Result<Self, Error> {
        let path = file.to_str().ok_or_else(|| Error::path("load", file))?;
        let inner = bridge::load_plan(library.is_double(), path)
            .map_err(|thrown| Error::thrown("load", &thrown))?;
        Ok(Self { inner, bound: refit::Bound::default() })
    }

    /// Writes the plan with the weights it has now.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn serialize(&mut self) -> Result<Vec<u8>, Error> {
        let buffer = self
            .inner
            .pin_mut()
            .serialize()
            .map_err(|thrown| Error::thrown("serialize", &thrown))?;
        Ok(buffer.bytes().to_vec())
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Bindable for Plan {
    fn weights(&mut self) -> Result<Vec<WeightInfo>, Error> {
        let refit = self.inner.pin_mut().refit();
        refit::weights(refit.map_err(|thrown| Error::thrown("weights", &thrown))?)
    }

    fn bind(&mut self, name: &str, dtype: DataType, values: &Memory) -> Result<(), Error> {
        let refit = self.inner.pin_mut().refit();
        let refit = refit.map_err(|thrown| Error::thrown("bind", &thrown))?;
        self.bound.bind(refit, name, dtype, values)
    }

    fn commit(&mut self, readings: &[&Reading]) -> Result<(), Error> {
        let refit = self.inner.pin_mut().refit();
        let refit = refit.map_err(|thrown| Error::thrown("commit", &thrown))?;
        self.bound.commit(refit, readings)
    }
}
