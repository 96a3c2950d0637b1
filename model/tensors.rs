//! Named tensors in one safetensors file, such as an optimizer's state.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{
    Error,
    error::Result,
    new_shard::{Entry, NewShard},
    shard::Shard,
};
use crate::{
    ffi::memory::{Lease, Memory},
    rollout::{WeightTensor, WeightVersion, Weights},
};

/// How long to wait for an optimizer step to finish before its tensors are read.
const PATIENCE: Duration = Duration::from_secs(600);

/// Writes tensors, in the order of their names, and waits until they are on the disk.
///
/// # Errors
/// When the file cannot be written, or somebody writes to the tensors for ten minutes.
pub fn write_tensors(path: &Path, tensors: &Weights) -> Result<()> {
    let reading = tensors.lease().read(PATIENCE);
    let reading =
        reading.ok_or_else(|| Error::file(path, "waits for tensors that are being written to"))?;
    let entries: Vec<Entry<'_>> = tensors
        .iter()
        .map(|(name, tensor)| Entry { name, dtype: tensor.dtype, shape: &tensor.shape })
        .collect();
    let mut file = NewShard::create(path, &entries)?;
    for (_, tensor) in tensors.iter() {
        file.write(tensor.memory.bytes(&reading))?;
    }
    file.finish()
}

/// Maps the tensors of a file.
///
/// # Errors
/// One line that names the file: it cannot be read, or is no whole safetensors file of floats.
pub fn read_tensors(path: &Path) -> Result<Weights> {
    let (shard, lease) = (Shard::open(path.to_owned())?, Lease::default());
    let mut tensors = BTreeMap::new();
    for name in shard.names() {
        let entry = shard.entry(&name)?;
        let memory = Memory::from_map(shard.map.clone(), entry.range, &lease);
        tensors.insert(name, WeightTensor { dtype: entry.dtype, shape: entry.shape, memory });
    }
    Ok(Weights::new(WeightVersion::default(), lease, tensors))
}
