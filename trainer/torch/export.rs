//! Weights for others: an alias of the trainer's own storage where that can be, a copy elsewhere.

use std::{collections::BTreeMap, ops::Range};

use tch::{Kind, Tensor};

use super::{
    Error, Model, Result,
    layout::{Layout, Slot},
    parameters::{FlatGradient, kind_of},
};
use crate::{
    ffi::torch::Leased,
    rollout::{Dtype, WeightTensor, WeightVersion, Weights},
};

impl Model {
    /// Returns every weight under its checkpoint name.
    ///
    /// An adapter is merged: what it stands beside is `W + scale B A`, computed in f32, and every tensor a copy. Else, on the
    /// host, f32 (the master weights) and the format of the forward pass are aliases: no byte is copied, later
    /// optimizer steps write to the same memory, under the write permission of [`Weights::lease`]. Every other
    /// combination is a copy.
    ///
    /// # Errors
    /// When libtorch fails: there is no memory left for a copy.
    pub fn weights(&self, version: WeightVersion, dtype: Dtype) -> Result<Weights> {
        let parameters = &self.parameters;
        if parameters.storage.device == tch::Device::Cpu {
            return self.device_weights(version, dtype);
        }
        let kind = kind_of(dtype);
        let copy = tch::no_grad(|| match self.aliased(kind) {
            Some(buffer) => Ok(parameters.weights().buffers()[buffer].shallow_clone()),
            None => self.merged(kind, None),
        })?;
        let copy = copy.f_to_device(tch::Device::Cpu)?;
        own(&parameters.layout, &Leased::new(vec![copy]), 0, version)
    }

    /// Returns every weight under its checkpoint name, on the device the model is on, for an engine that reads its new
    /// weights from there.
    ///
    /// f32 (the master weights) and the format of the forward pass are aliases, as in [`Model::weights`]; another format
    /// is a copy on the same device. Work that the trainer queued on a CUDA device comes first on its current stream: who
    /// reads the bytes there waits for that stream.
    ///
    /// # Errors
    /// When libtorch fails: there is no memory left for a copy.
    pub fn device_weights(&self, version: WeightVersion, dtype: Dtype) -> Result<Weights> {
        let parameters = &self.parameters;
        if let Some(buffer) = self.aliased(kind_of(dtype)) {
            return own(&parameters.layout, parameters.weights(), buffer, version);
        }
        let copy = tch::no_grad(|| self.merged(kind_of(dtype), None))?;
        own(&parameters.layout, &Leased::new(vec![copy]), 0, version)
    }

    /// Returns what learns, under its checkpoint name or [`Lora::tensors`](crate::model::Lora::tensors)'s, in f32: on the
    /// host an alias, as in [`Model::weights`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn learned(&self) -> Result<Weights> {
        let parameters = &self.parameters;
        let (layout, leased) = (&parameters.layout, parameters.weights());
        if parameters.storage.device != tch::Device::Cpu {
            return copied(layout, &parameters.master()?);
        }
        named(layout.learned_slots(), leased, 0, WeightVersion::default())
    }

    /// Returns the adapter's tensors and, where the model has one, the score head, as [`Model::learned`] does; `None`
    /// without an adapter.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn adapter(&self) -> Result<Option<Weights>> {
        // With an adapter nothing else learns.
        self.lora().map(|_| self.learned()).transpose()
    }

    /// Returns every weight as [`Model::weights`] does, with others in place of what learns: a copy.
    pub(super) fn weights_with(&self, learned: &Tensor, dtype: Dtype) -> Result<Weights> {
        let merged = tch::no_grad(|| self.merged(kind_of(dtype), Some(learned)))?;
        let copy = merged.f_to_device(tch::Device::Cpu)?;
        own(&self.parameters.layout, &Leased::new(vec![copy]), 0, WeightVersion::default())
    }

    /// Returns the buffer that holds every weight in a format, if there is one.
    fn aliased(&self, kind: Kind) -> Option<usize> {
        let parameters = &self.parameters;
        let len = parameters.layout.len as i64;
        let buffers = parameters.weights().buffers();
        let fits = |flat: &Tensor| flat.kind() == kind && flat.size() == [len];
        buffers.iter().position(fits).filter(|_| self.lora().is_none())
    }

    /// Returns a copy of every weight, adapters merged, computed in f32; with others in place of what learns, if given.
    fn merged(&self, kind: Kind, learned: Option<&Tensor>) -> Result<Tensor> {
        let parameters = &self.parameters;
        let buffers = parameters.weights().buffers();
        let flat = buffers[buffers.len() - 1].f_to_dtype(Kind::Float, false, true)?;
        let part = |range: &Range<usize>| flat.f_narrow(0, range.start as i64, range.len() as i64);
        let own = parameters.master()?;
        part(&(0..parameters.layout.learned))?.f_copy_(learned.unwrap_or(&own))?;
        for place in parameters.layout.adapters() {
            let (rank, inputs) = (place.rank as i64, place.inputs as i64);
            let a = part(&place.a)?.f_view([-1, inputs])?.f_mul_scalar(place.scale)?;
            for (n, of) in place.parts.iter().enumerate() {
                let b = part(&of.b)?.f_view([-1, rank])?;
                let a = a.f_narrow(0, n as i64 * rank, rank)?;
                let _ = part(&of.weight)?.f_view([-1, inputs])?.f_addmm_(&b, &a)?;
            }
        }
        Ok(flat.f_to_kind(kind)?)
    }

    /// Returns the gradient of each parameter under its checkpoint name, copied.
    ///
    /// # Errors
    /// When no training pass has been run, or libtorch fails.
    pub fn gradient(&self) -> Result<Weights> {
        let layout = &self.parameters.layout;
        match self.parameters.gradient()? {
            FlatGradient::Own(flat) => copied_numbers(layout, flat),
            FlatGradient::Autograd(flat) => copied(layout, flat),
        }
    }
}

/// Copies a flat buffer of what learns to the host, as named tensors.
pub(super) fn copied(layout: &Layout, flat: &Tensor) -> Result<Weights> {
    let copy = flat.f_to_device_(tch::Device::Cpu, flat.kind(), false, true)?;
    named(layout.learned_slots(), &Leased::new(vec![copy]), 0, WeightVersion::default())
}

/// As [`copied`], of a buffer that is no tensor.
pub(super) fn copied_numbers(layout: &Layout, flat: &[f32]) -> Result<Weights> {
    let leased = Leased::new(vec![Tensor::f_from_slice(flat)?]);
    named(layout.learned_slots(), &leased, 0, WeightVersion::default())
}

/// Lends a flat buffer of every weight, where it is, as a checkpoint's tensors.
fn own(layout: &Layout, leased: &Leased, buffer: usize, version: WeightVersion) -> Result<Weights> {
    named(layout.own_slots(), leased, buffer, version)
}

/// Lends a flat buffer, where it is, as named tensors.
fn named<'a>(
    slots: impl Iterator<Item = &'a Slot>,
    leased: &Leased,
    buffer: usize,
    version: WeightVersion,
) -> Result<Weights> {
    let dtype = dtype_of(&leased.buffers()[buffer])?;
    let refused = || Error::input("weights", "contiguous, on the host or a CUDA device", "others");
    let flat = leased.lend(buffer).ok_or_else(refused)?;
    let lend = |slot: &Slot| {
        let (start, end) = (slot.offset, slot.offset + slot.elements());
        let bytes = start * dtype.size()..end * dtype.size();
        let memory = flat.slice(bytes).ok_or_else(refused)?;
        Ok((slot.name.clone(), WeightTensor { dtype, shape: slot.shape.clone(), memory }))
    };
    let tensors = slots.map(lend).collect::<Result<BTreeMap<_, _>>>()?;
    Ok(Weights::new(version, leased.lease().clone(), tensors))
}

fn dtype_of(flat: &Tensor) -> Result<Dtype> {
    [Dtype::F32, Dtype::Bf16, Dtype::F16]
        .into_iter()
        .find(|&dtype| kind_of(dtype) == flat.kind())
        .ok_or_else(|| Error::input("weights", "f32, bf16 or f16", format!("{:?}", flat.kind())))
}
