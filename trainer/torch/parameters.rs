//! A model's parameters and their gradient, each in one flat buffer.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::{
    Error, Learns, Result, WRITE_DEADLINE,
    layout::{Layout, Slot},
};
use crate::{
    ffi::{
        torch::{HostBuffers, Leased},
        torch_matmul::Number,
    },
    model::{Head, ModelSpec},
    rollout::{Dtype, TensorSpec, Weights},
};

/// Where and in which format parameters are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    pub(super) device: tch::Device,
    /// The format the forward pass computes in.
    pub(super) compute: Kind,
    /// Never trained: no master weights, no gradient.
    pub(super) frozen: bool,
    /// Whether passes are libtorch's rather than our own.
    pub(super) autograd: bool,
}

/// Master weights, the copy the forward pass uses where that is another format, and the gradient. Masters and gradient are
/// of what learns only.
///
/// The forward pass sees *leaves*: views into the flat buffer, one per [`Group`](super::layout::Group). Each leaf's
/// gradient is in turn a view into the flat gradient, so that a backward pass adds right into it.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) layout: Layout,
    pub(super) storage: Storage,
    /// Flat. Where the forward pass computes in f32, and in a frozen model: every weight, as it computes with them.
    /// Elsewhere the master weights of what learns, in f32, then every weight in the compute format.
    weights: Leased,
    leaves: HashMap<String, Tensor>,
    gradient: Option<Gradient>,
}

/// Sums over micro-batches, flat, in f32.
#[derive(Debug)]
enum Gradient {
    /// Of passes of our own.
    Own(Vec<f32>),
    /// Of libtorch's autograd.
    Autograd {
        flat: Tensor,
        /// Flat, in the compute format: one micro-batch, where that is not f32.
        shadow: Option<Tensor>,
    },
}

/// The sum of the micro-batches' gradients, flat.
pub(super) enum FlatGradient<'a> {
    Own(&'a [f32]),
    Autograd(&'a Tensor),
}

pub(super) fn kind_of(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
    }
}

impl Parameters {
    pub(super) fn load(
        spec: &ModelSpec,
        weights: &Weights,
        storage: Storage,
        learns: &Learns,
    ) -> Result<Self> {
        let layout = Layout::new(spec, learns)?;
        weights.check_coverage(&spec.tensors())?;
        if let Some((lora, adapter)) = &learns.adapter {
            let own = adapter.iter().filter(|(name, _)| *name != Head::SCORE);
            let own = own.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
            let own = Weights::new(adapter.version(), adapter.lease().clone(), own);
            own.check_coverage(&lora.tensors(spec))?;
        }
        let sources = std::iter::once(weights).chain(learns.adapter.as_ref().map(|(_, own)| own));
        let sources: Vec<&Weights> = sources.collect();
        let gather = |kind, len| gather(&layout, &sources, len, (kind, storage.device));
        let (whole, learned) = (layout.len, layout.learned);
        let buffers = if storage.frozen || storage.compute == Kind::Float {
            vec![gather(storage.compute, whole)?]
        } else if learned == whole {
            let master = gather(Kind::Float, whole)?;
            let copy = master.f_to_kind(storage.compute)?;
            vec![master, copy]
        } else {
            // What does not learn is never there in f32.
            vec![gather(Kind::Float, learned)?, gather(storage.compute, whole)?]
        };
        let leaves = leaves(&layout, &buffers[buffers.len() - 1], layout.len)?;
        Ok(Self { layout, storage, weights: Leased::new(buffers), leaves, gradient: None })
    }

    /// Returns what the forward pass computes with.
    pub(super) fn leaf(&self, key: &str) -> Option<Tensor> {
        self.leaves.get(key).map(Tensor::shallow_clone)
    }

    /// Returns the flat buffers: the master weights, then their copy in the compute format if it is another one.
    pub(super) fn weights(&self) -> &Leased {
        &self.weights
    }

    /// Returns the sum of the micro-batches' gradients, or an error where none was ever computed.
    pub(super) fn gradient(&self) -> Result<FlatGradient<'_>> {
        match &self.gradient {
            Some(Gradient::Own(flat)) => Ok(FlatGradient::Own(flat)),
            Some(Gradient::Autograd { flat, .. }) => Ok(FlatGradient::Autograd(flat)),
            None => Err(no_gradient()),
        }
    }

    /// Returns what a pass of our own reads: the weights in its format.
    pub(super) fn numbers<E: Number>(&self) -> Result<&[E]> {
        let found = self.weights.numbers(self.weights.buffers().len() - 1);
        found.ok_or_else(|| Error::input("weights", "on the host, in the compute format", "others"))
    }

    /// Returns what a pass of our own reads, and what it adds to.
    pub(super) fn own_parts<E: Number>(&mut self) -> Result<(&[E], &mut [f32])> {
        self.enable_gradient()?;
        let found = self.weights.numbers(self.weights.buffers().len() - 1);
        match (found, &mut self.gradient) {
            (Some(numbers), Some(Gradient::Own(flat))) => Ok((numbers, flat)),
            _ => Err(Error::input("weights", "on the host, in the compute format", "others")),
        }
    }

    /// Lets an optimizer of our own change the master weights, their copy and the gradient; nobody reads meanwhile.
    pub(super) fn step<R>(
        &mut self,
        change: impl FnOnce(HostBuffers<'_>, &mut [f32]) -> Result<R>,
    ) -> Result<R> {
        let Some(Gradient::Own(flat)) = &mut self.gradient else { return Err(no_gradient()) };
        let written = self.weights.write_host(WRITE_DEADLINE, |buffers| change(buffers, flat));
        written.unwrap_or(Err(Error::Deadline { seconds: WRITE_DEADLINE.as_secs_f64() }))
    }

    /// Makes the leaves collect gradients, right into the flat gradient.
    pub(super) fn enable_gradient(&mut self) -> Result<()> {
        if self.storage.frozen {
            return Err(Error::input("model", "loaded for training", "a frozen one"));
        }
        if self.gradient.is_some() {
            return Ok(());
        }
        if !self.storage.autograd {
            self.gradient = Some(Gradient::Own(vec![0.0; self.layout.learned]));
            return Ok(());
        }
        let options = |kind| (kind, self.storage.device);
        let learned = self.layout.learned;
        let flat = Tensor::f_zeros([learned as i64], options(Kind::Float))?;
        let shadow = (self.storage.compute != Kind::Float)
            .then(|| Tensor::f_zeros([learned as i64], options(self.storage.compute)))
            .transpose()?;
        let target = leaves(&self.layout, shadow.as_ref().unwrap_or(&flat), learned)?;
        for (key, leaf) in self.leaves.iter().filter(|(key, _)| target.contains_key(*key)) {
            let leaf = leaf.f_set_requires_grad(true)?;
            // libtorch has no call to hand a leaf its gradient. But once there is one, backward passes add to it in
            // place; so let it make one, and put the flat gradient's storage behind that.
            leaf.f_sum(leaf.kind())?.f_backward()?;
            leaf.f_grad()?.f_set_data(&target[key])?;
        }
        self.gradient = Some(Gradient::Autograd { flat, shadow });
        Ok(())
    }

    /// Adds the micro-batch's gradient to the sum, where the backward pass did not do so by itself.
    pub(super) fn collect_gradient(&mut self) -> Result<()> {
        if let Some(Gradient::Autograd { flat, shadow: Some(shadow) }) = &mut self.gradient {
            let _ = flat.f_add_(shadow)?;
            let _ = shadow.f_zero_()?;
        }
        Ok(())
    }

    /// Sets the gradient to zero, that of an interrupted micro-batch included.
    pub(super) fn clear_gradient(&mut self) -> Result<()> {
        match &mut self.gradient {
            Some(Gradient::Own(flat)) => flat.fill(0.0),
            Some(Gradient::Autograd { flat, shadow }) => {
                let _ = flat.f_zero_()?;
                if let Some(shadow) = shadow {
                    let _ = shadow.f_zero_()?;
                }
            }
            None => (),
        }
        Ok(())
    }

    /// Changes the master weights of what learns in place, then the copy that the forward pass uses; nobody reads
    /// meanwhile.
    pub(super) fn write(&mut self, change: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        let learned = self.layout.learned as i64;
        let written = self.weights.write(WRITE_DEADLINE, |buffers| {
            tch::no_grad(|| {
                let [master, copies @ ..] = buffers else { return Ok(()) };
                let mut master = master.f_narrow(0, 0, learned)?;
                change(&mut master)?;
                copies
                    .iter_mut()
                    .try_for_each(|copy| Ok(copy.f_narrow(0, 0, learned)?.f_copy_(&master)?))
            })
        });
        written.unwrap_or(Err(Error::Deadline { seconds: WRITE_DEADLINE.as_secs_f64() }))
    }

    /// Replaces all that learns, or nothing.
    pub(super) fn replace(&mut self, learned: &Weights) -> Result<()> {
        let staged = self.gather(learned)?;
        self.write(|master| Ok(master.f_copy_(&staged)?))
    }

    /// Copies tensors of the names and shapes of what learns into a flat buffer like the master's.
    pub(super) fn gather(&self, tensors: &Weights) -> Result<Tensor> {
        let spec = |slot: &Slot| TensorSpec { name: slot.name.clone(), shape: slot.shape.clone() };
        let expected: Vec<TensorSpec> = self.layout.learned_slots().map(spec).collect();
        tensors.check_coverage(&expected)?;
        let options = (self.weights.buffers()[0].kind(), self.storage.device);
        gather(&self.layout, &[tensors], self.layout.learned, options)
    }

    /// Returns the master weights of what learns, for reading.
    pub(super) fn master(&self) -> Result<Tensor> {
        Ok(self.weights.buffers()[0].f_narrow(0, 0, self.layout.learned as i64)?)
    }

    /// Names the first element that is not finite.
    pub(super) fn check_finite(layout: &Layout, flat: &Tensor, what: &'static str) -> Result<()> {
        let finite = flat.f_isfinite()?;
        if finite.f_all()?.f_int64_value(&[])? != 0 {
            return Ok(());
        }
        let at = finite.f_logical_not()?.f_nonzero()?.f_int64_value(&[0, 0])?;
        let got = flat.f_double_value(&[at])?;
        let at = at as usize;
        let slot = layout.slots().filter(|slot| slot.offset <= at).max_by_key(|slot| slot.offset);
        let (tensor, index) =
            slot.map_or((String::new(), at), |slot| (slot.name.clone(), at - slot.offset));
        Err(Error::NotFinite { what, tensor, index, got })
    }
}

fn no_gradient() -> Error {
    Error::input("gradient", "computed before an optimizer step", "no training pass")
}

/// Copies named tensors, the last of a name, into a new flat buffer of the first so many elements, after checking that
/// they are finite.
fn gather(
    layout: &Layout,
    sources: &[&Weights],
    len: usize,
    (kind, device): (Kind, tch::Device),
) -> Result<Tensor> {
    let flat = Tensor::f_zeros([len as i64], (kind, device))?;
    for weights in sources {
        let Some(reading) = weights.lease().read(WRITE_DEADLINE) else {
            return Err(Error::Deadline { seconds: WRITE_DEADLINE.as_secs_f64() });
        };
        for slot in layout.slots().filter(|slot| slot.offset < len) {
            let Some(tensor) = weights.get(&slot.name) else { continue }; // some source has it
            let elements = slot.elements() as i64;
            let bytes = tensor.memory.bytes(&reading);
            let values = Tensor::f_from_data_size(bytes, &[elements], kind_of(tensor.dtype))?;
            flat.f_narrow(0, slot.offset as i64, elements)?.f_copy_(&values)?;
        }
    }
    Parameters::check_finite(layout, &flat, "weight")?;
    Ok(flat)
}

/// Returns a view into a flat buffer of so many elements for each group that lies in it, by its key.
fn leaves(layout: &Layout, flat: &Tensor, len: usize) -> Result<HashMap<String, Tensor>> {
    let view = |group: &super::layout::Group| {
        let part = flat.f_narrow(0, group.offset() as i64, group.elements() as i64)?;
        Ok((group.key.clone(), part.f_view(group.shape().as_slice())?.f_detach()?))
    };
    layout.groups.iter().filter(|group| group.offset() < len).map(view).collect()
}
