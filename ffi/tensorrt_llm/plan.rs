//! A plan that nothing runs: refitted and serialised, it becomes the next executor.

use std::path::Path;

use super::{Bindable, DataType, Error, Library, WeightInfo};
use crate::ffi::memory::{Memory, Reading};

/// An engine file (`rankN.engine`) in memory.
#[derive(Debug)]
pub struct Plan;

impl Plan {
    /// Loads an engine file.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn load(library: Library, file: &Path) -> Result<Self, Error> {
        todo!()
    }

    /// Writes the plan with the weights it has now.
    ///
    /// # Errors
    /// The other side's sentence.
    pub fn serialize(&mut self) -> Result<Vec<u8>, Error> {
        todo!()
    }
}

impl Bindable for Plan {
    fn weights(&mut self) -> Result<Vec<WeightInfo>, Error> {
        todo!()
    }

    fn bind(&mut self, name: &str, dtype: DataType, values: &Memory) -> Result<(), Error> {
        todo!()
    }

    fn commit(&mut self, readings: &[&Reading]) -> Result<(), Error> {
        todo!()
    }
}
