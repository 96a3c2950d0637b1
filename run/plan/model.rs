//! What a model takes, whoever computes with it.

use super::{
    batch::Batch,
    ledger::Part,
    pass::{F32, Passes, Taken},
    phase::Phases,
    room::Room,
};
use crate::{
    config::{EmaConfig, LoraConfig},
    model::{Head, Lora, ModelSpec, read_adapter},
    rollout::{Dtype, TensorSpec},
    trainer::config::Freeze,
};

/// A model in the trainer. Its master weights, gradient and moments are f32 whatever the forward pass computes in.
#[derive(Clone, Debug)]
pub(super) struct PlannedModel {
    pub(super) spec: ModelSpec,
    /// The format its checkpoint is in.
    pub(super) file: Dtype,
    /// The format it computes in.
    pub(super) compute: Dtype,
    pub(super) checkpointing: bool,
    /// Only ever scored with.
    pub(super) frozen: bool,
    pub(super) learns: Learned,
    /// Whether passes and optimizer are our own, rather than libtorch's on a GPU.
    pub(super) on_host: bool,
}

/// What of a model learns, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// Of the model's own parameters, so many do not.
    pub(super) frozen: u64,
    /// Numbers of an adapter beside it.
    pub(super) adapter: u64,
    /// Whether an average of what learns is kept.
    pub(super) average: bool,
}

impl Learned {
    /// Counts what the options leave of a model of this shape.
    pub(super) fn of(
        spec: &ModelSpec,
        freeze: &Freeze,
        lora: Option<&Lora>,
        ema: EmaConfig,
    ) -> Self {
        let elements = |tensor: &TensorSpec| tensor.shape.iter().product::<usize>() as u64;
        let stays = |tensor: &TensorSpec| match lora {
            Some(_) => tensor.name != Head::SCORE,
            None => freeze.keeps(&tensor.name),
        };
        let adapter = lora.map(|lora| lora.tensors(spec)).unwrap_or_default();
        Self {
            frozen: spec.tensors().iter().filter(|tensor| stays(tensor)).map(elements).sum(),
            adapter: adapter.iter().map(elements).sum(),
            average: ema.decay > 0.0,
        }
    }
}

impl PlannedModel {
    pub(super) fn parameters(&self) -> u64 {
        self.spec.parameters() as u64
    }

    /// Returns how many numbers learn.
    fn learned(&self) -> u64 {
        self.parameters().saturating_sub(self.learns.frozen) + self.learns.adapter
    }

    /// Returns the bytes of its checkpoint.
    pub(super) fn file_bytes(&self) -> u64 {
        self.parameters() * self.file.size() as u64
    }

    /// Returns the bytes of its weights: the master's, and a copy in another format where it computes in one. A frozen
    /// model has only what it computes with.
    pub(super) fn weights(&self) -> u64 {
        let computed = (self.parameters() + self.learns.adapter) * self.compute.size() as u64;
        let has_masters = !self.frozen && self.compute != Dtype::F32;
        computed + if has_masters { self.learned() * F32 } else { 0 }
    }

    /// Returns the bytes of the average of its weights.
    fn average(&self) -> u64 {
        if self.learns.average { self.learned() * F32 } else { 0 }
    }

    /// Returns the bytes of a copy with the adapter merged, as it is made in f32 and then in a format; nothing without one.
    pub(super) fn merging(&self, dtype: Dtype) -> u64 {
        let as_f32 = (self.parameters() + self.learns.adapter) * F32;
        let narrow = if dtype == Dtype::F32 { 0 } else { self.parameters() * dtype.size() as u64 };
        if self.learns.adapter > 0 { as_f32 + narrow } else { 0 }
    }

    /// Returns the bytes of its gradient: the sum in f32, and on a GPU a micro-batch's in another format.
    pub(super) fn gradient(&self) -> u64 {
        let shadow = if self.on_host { 0 } else { self.shadow() };
        if self.frozen { 0 } else { self.learned() * (F32 + shadow) }
    }

    /// Returns the bytes of AdamW's two moments.
    pub(super) fn moments(&self) -> u64 {
        if self.frozen { 0 } else { self.learned() * 2 * F32 }
    }

    /// Keeps its weights for the rest of the run, and its moments, where they lie on a GPU.
    pub(super) fn load_into(&self, phases: &mut Phases) {
        phases.keep_in_trainer(Part::Weights, self.weights() + self.average());
        if !self.on_host {
            phases.keep_in_trainer(Part::Optimizer, self.moments());
        }
    }

    /// Keeps what the first step leaves: its gradient, and on the host its moments, of which the system gives no page
    /// before it is written to.
    pub(super) fn learn_in(&self, phases: &mut Phases) {
        phases.keep_in_trainer(Part::Gradients, self.gradient());
        if self.on_host {
            phases.keep_in_trainer(Part::Optimizer, self.moments());
        }
    }

    /// Returns the bytes of what loading makes and drops: the tensors in f32 where the file has another format, and
    /// what the search for numbers that are not finite makes of the flat buffer.
    pub(super) fn loading(&self) -> u64 {
        let converted = if self.file == Dtype::F32 { 0 } else { F32 };
        let held = if self.frozen { self.compute.size() as u64 } else { F32 };
        // |x|, and three masks of a byte each.
        self.parameters() * (converted + held + 3)
    }

    /// Returns the bytes of what an optimizer step makes and drops: on a GPU the gradient's square, then the denominator.
    pub(super) fn stepping(&self) -> u64 {
        if self.on_host { 0 } else { self.learned() * F32 }
    }

    /// Returns the bytes of what a checkpoint copies: both moments. (Weights of another format than both that they are
    /// held in are copied before, and are less.) Of a model with an adapter, or an average, the whole of the merged one.
    pub(super) fn saving(&self) -> u64 {
        let average = if self.learns.average { self.parameters() * F32 } else { 0 };
        self.moments().max(self.merging(self.file)).max(average)
    }

    /// Returns what a forward pass takes on a GPU.
    pub(super) fn forward(&self, batch: Batch) -> Taken {
        self.passes(batch).forward()
    }

    /// Returns what a training pass takes on a GPU; the head holds its logits `copies` times going forward.
    pub(super) fn train(&self, batch: Batch, copies: u64) -> Taken {
        self.passes(batch).train(copies)
    }

    /// Returns the room that scoring needs on the host.
    pub(super) fn scoring_room(&self, batch: Batch) -> Room {
        self.passes(batch).scoring_room()
    }

    /// Returns the room that training needs on the host.
    pub(super) fn training_room(&self, batch: Batch) -> Room {
        self.passes(batch).training_room()
    }

    fn passes(&self, batch: Batch) -> Passes<'_> {
        let Self { spec, compute, checkpointing, .. } = self;
        Passes { spec, compute: *compute, checkpointing: *checkpointing, batch }
    }

    /// Returns the bytes of a second copy in the format it computes in, where that is not f32.
    fn shadow(&self) -> u64 {
        if self.compute == Dtype::F32 { 0 } else { self.compute.size() as u64 }
    }
}

/// Returns the adapter that a configuration wants beside a model; none where its directory cannot be read, of which the run
/// itself says more.
pub(super) fn adapter(config: &LoraConfig, spec: &ModelSpec) -> Option<Lora> {
    match &config.adapter {
        Some(path) => Some(read_adapter(path, spec).ok()?.lora),
        None => config.described(),
    }
}
