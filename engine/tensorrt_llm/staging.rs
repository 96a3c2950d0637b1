//! Where the weights of a refit lie while TensorRT reads them: where they are, or gathered in buffers of ours.

use std::{collections::BTreeMap, time::Duration};

use rayon::prelude::*;

use crate::{
    engine::RefitMode,
    ffi::{
        memory::{Lease, Location, Memory, Reading, Rewritable},
        tensorrt_llm::{Capabilities, DataType},
    },
    model::tensorrt_llm::Mapped,
    rollout::{Dtype, Weights},
};

/// One engine tensor and where its new values lie.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The engine's name for it.
    pub(super) name: String,
    /// Its number format.
    pub(super) dtype: Dtype,
    /// Its numbers.
    pub(super) memory: Memory,
}

/// Every engine tensor's source.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// In the order of the map.
    pub(super) list: Vec<Source>,
    /// Bytes that were copied to get them there.
    pub(super) staged: usize,
}

/// Buffers that are written anew for each refit, under one lease.
#[derive(Debug, Default)]
pub(super) struct Staging {
    lease: Lease,
    buffers: BTreeMap<String, Rewritable>,
}

/// The weights of a refit, and how they are to get in.
#[derive(Clone, Copy)]
pub(super) struct Offer<'a> {
    /// The weights.
    pub(super) weights: &'a Weights,
    /// Permission to read them.
    pub(super) reading: &'a Reading,
    /// Whether the trainer's memory may be handed to TensorRT.
    pub(super) mode: RefitMode,
    /// The engine's number format.
    pub(super) dtype: Dtype,
    /// What the library can read from.
    pub(super) capabilities: Capabilities,
}

/// The tensor at fault, and what is wrong with it.
pub(super) type Problem = (String, String);

impl Staging {
    /// Returns the lease of the buffers.
    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Finds or makes the source of every tensor of the map.
    ///
    /// # Errors
    /// Names the first tensor that cannot be used, such as one on a device that does not lie as the engine wants it.
    pub(super) fn sources(
        &mut self,
        map: &[Mapped],
        offer: &Offer<'_>,
        deadline: Duration,
    ) -> Result<Sources, Problem> {
        let places: Vec<Option<Memory>> = map.iter().map(|mapped| offer.place(mapped)).collect();
        let staged: Vec<&Mapped> = map
            .iter()
            .zip(&places)
            .filter(|(_, place)| place.is_none())
            .map(|(mapped, _)| mapped)
            .collect();
        self.gather(&staged, offer, deadline)?;
        let size = |mapped: &Mapped| mapped.elements() * offer.dtype.size();
        let list = map.iter().zip(places).map(|(mapped, place)| {
            let memory = place.unwrap_or_else(|| self.buffers[&mapped.name].memory().clone());
            Source { name: mapped.name.clone(), dtype: offer.dtype, memory }
        });
        Ok(Sources { list: list.collect(), staged: staged.into_iter().map(size).sum() })
    }

    /// Copies tensors together into the buffers.
    fn gather(
        &mut self,
        staged: &[&Mapped],
        offer: &Offer<'_>,
        deadline: Duration,
    ) -> Result<(), Problem> {
        for mapped in staged {
            let bytes = mapped.elements() * offer.dtype.size();
            let fits = self.buffers.get(&mapped.name).is_some_and(|b| b.memory().len() == bytes);
            if !fits {
                self.buffers.insert(mapped.name.clone(), Rewritable::zeroed(bytes, &self.lease));
            }
        }
        let busy =
            || ("the staging buffers".to_owned(), "an earlier refit still reads them".to_owned());
        let writing = self.lease.write(deadline).ok_or_else(busy)?;
        let by_name: BTreeMap<&str, &Mapped> =
            staged.iter().map(|mapped| (mapped.name.as_str(), *mapped)).collect();
        self.buffers.par_iter_mut().try_for_each(|(name, buffer)| {
            let Some(mapped) = by_name.get(name.as_str()) else { return Ok(()) };
            let out = buffer.bytes_mut(&writing);
            let done = mapped.gather(offer.weights, offer.reading, offer.dtype, out);
            done.map_err(|error| (name.clone(), error.to_string()))
        })
    }
}

impl Offer<'_> {
    /// Returns where a tensor lies as the engine wants it, if TensorRT may read it there.
    fn place(&self, mapped: &Mapped) -> Option<Memory> {
        let memory = mapped.in_place(self.weights, self.dtype)?;
        let (wanted, able) = match memory.location() {
            Location::Host => (self.mode == RefitMode::Alias, Capabilities::REFIT_FROM_HOST),
            // There is no way to copy it from here.
            Location::Cuda(_) => (true, Capabilities::REFIT_FROM_DEVICE),
        };
        let aligned = memory.address().is_multiple_of(self.dtype.size());
        (wanted && aligned && self.capabilities.contains(able)).then_some(memory)
    }
}

/// Returns the format as the library numbers it.
pub(super) fn data_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F32 => DataType::F32,
        Dtype::F16 => DataType::F16,
        Dtype::Bf16 => DataType::Bf16,
    }
}
