//! Weights for others: an alias of the trainer's own storage where that can be, a copy elsewhere.

use std::collections::BTreeMap;

use tch::Tensor;

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
    /// On the host, f32 (the master weights) and the format of the forward pass are aliases: no byte is copied, later
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
        let (kind, buffers) = (kind_of(dtype), parameters.weights().buffers());
        let flat = buffers.iter().find(|flat| flat.kind() == kind).unwrap_or(&buffers[0]);
        let copy = tch::no_grad(|| flat.f_to_kind(kind)?.f_to_device(tch::Device::Cpu))?;
        named(&parameters.layout, &Leased::new(vec![copy]), 0, version)
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
        let (kind, buffers) = (kind_of(dtype), parameters.weights().buffers());
        if let Some(buffer) = buffers.iter().position(|flat| flat.kind() == kind) {
            return named(&parameters.layout, parameters.weights(), buffer, version);
        }
        let copy = tch::no_grad(|| buffers[0].f_to_kind(kind))?;
        named(&parameters.layout, &Leased::new(vec![copy]), 0, version)
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

/// Copies a flat buffer to the host, as named tensors.
pub(super) fn copied(layout: &Layout, flat: &Tensor) -> Result<Weights> {
    let copy = flat.f_to_device_(tch::Device::Cpu, flat.kind(), false, true)?;
    named(layout, &Leased::new(vec![copy]), 0, WeightVersion::default())
}

/// As [`copied`], of a buffer that is no tensor.
pub(super) fn copied_numbers(layout: &Layout, flat: &[f32]) -> Result<Weights> {
    named(layout, &Leased::new(vec![Tensor::f_from_slice(flat)?]), 0, WeightVersion::default())
}

/// Lends a flat buffer, where it is, as named tensors.
fn named(
    layout: &Layout,
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
    let tensors = layout.slots().map(lend).collect::<Result<BTreeMap<_, _>>>()?;
    Ok(Weights::new(version, leased.lease().clone(), tensors))
}

fn dtype_of(flat: &Tensor) -> Result<Dtype> {
    [Dtype::F32, Dtype::Bf16, Dtype::F16]
        .into_iter()
        .find(|&dtype| kind_of(dtype) == flat.kind())
        .ok_or_else(|| Error::input("weights", "f32, bf16 or f16", format!("{:?}", flat.kind())))
}
