//! Passes on the processor, forward and back, written out: libtorch multiplies matrices, everything else is fused
//! kernels of our own, in buffers that stay. Its slow twin is libtorch's autograd, which
//! [`ModelOptions::autograd`](super::ModelOptions::autograd) chooses, and which a GPU uses.
//!
//! ```text
//! n  = norm(x)                q, k, v = rotate(n Wqkv^T)        m = x + attention(q, k, v) Wo^T
//! n' = norm(m)                u, g = n' Wug^T                   x' = m + (silu(g) u) Wd^T
//! ```
//!
//! The residual stream is f32; whatever goes into a product is in the format of the pass, as in the embedded engine.
//! Kept for the way back are x, m, the q, k, v and u, g of each layer, attention's output and its soft-maxes'
//! denominators; norms and gates are computed again. Nothing is padded: attention takes sequences as long as they are.
//! Sums run in an order that does not depend on the number of threads, but for libtorch's.

mod adapter;
mod attention;
mod candidates;
mod compute;
mod head;
mod optimizer;
mod parts;
mod pass;
mod pointwise;
mod rotary;
mod sequences;
mod slots;
mod softmax;
mod workspace;

use crate::{
    model::ModelSpec,
    trainer::{
        batch::PackedBatch,
        learner::{LogprobOptions, TokenGradient, TokenLogprobs, TopLogprobs},
        torch::Result,
    },
};

use candidates::{Candidates, Slopes};
use compute::Crew;
pub(super) use compute::Format;
#[cfg(test)]
pub(super) use compute::use_kernels;
use head::{LanguageHead, ScoreHead, token_logprobs};
pub(super) use optimizer::{Moments, Step, norm};
use pass::Pass;
use sequences::Sequences;
use slots::Linear;
pub(super) use slots::Slots;
use workspace::{Workspace, at_least, room, zeros};

/// A model's parameters, and how it is computed.
#[derive(Clone, Copy)]
pub(super) struct Cpu<'a, E> {
    pub(super) spec: &'a ModelSpec,
    pub(super) slots: &'a Slots,
    /// The flat buffer, in the format of the pass.
    pub(super) weights: &'a [E],
    /// Compute layers again on the way back, from their inputs.
    pub(super) checkpointing: bool,
    /// Bytes of logits that are held at a time.
    pub(super) logit_bytes: usize,
}

impl<E: Format> Cpu<'_, E> {
    /// The selected rows' log-probs.
    pub(super) fn logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs> {
        let targets: Vec<u32> = batch.targets().collect();
        self.scored(batch, &batch.selected, |pass, normed, logits, crew| {
            let aims = (&targets[..], candidates(batch));
            let head = self.language_head(pass, normed, aims, options);
            Ok(token_logprobs(&head.outputs(logits, crew)?, options))
        })
    }

    /// The selected rows' logits.
    pub(super) fn logits(&self, batch: &PackedBatch) -> Result<Vec<f32>> {
        // No target is needed; there may be none after the last row.
        let targets = vec![0; batch.selected.len()];
        let options = LogprobOptions::default();
        self.scored(batch, &batch.selected, |pass, normed, logits, _| {
            self.language_head(pass, normed, (&targets, NONE), &options).all_logits(logits)
        })
    }

    /// The selected rows' most probable tokens.
    pub(super) fn top_logprobs(
        &self,
        batch: &PackedBatch,
        count: usize,
        temperature: f64,
    ) -> Result<TopLogprobs> {
        let targets = vec![0; batch.selected.len()];
        let options = LogprobOptions::at(temperature);
        self.scored(batch, &batch.selected, |pass, normed, logits, crew| {
            self.language_head(pass, normed, (&targets, NONE), &options).top(count, logits, crew)
        })
    }

    /// These rows' scores.
    pub(super) fn scores(&self, batch: &PackedBatch, rows: &[usize]) -> Result<Vec<f32>> {
        self.scored(batch, rows, |_, normed, _, _| Ok(self.score_head(normed).scores()))
    }

    /// Computes log-probs, asks `loss` for its derivatives, and adds to the gradient.
    pub(super) fn train_logprobs(
        &self,
        gradient: &mut [f32],
        batch: &PackedBatch,
        options: &LogprobOptions,
        loss: impl FnOnce(&TokenLogprobs) -> Result<TokenGradient>,
    ) -> Result<()> {
        let targets: Vec<u32> = batch.targets().collect();
        self.train(gradient, batch, &batch.selected, |pass, room, gradient, crew| {
            let aims = (&targets[..], candidates(batch));
            let head = self.language_head(pass, room.normed, aims, options);
            let outputs = head.outputs(room.logits, crew)?;
            let gradient_of_rows = loss(&token_logprobs(&outputs, options))?;
            let slopes = Slopes::new(gradient_of_rows, aims.1.each);
            let sums = (gradient, room.weight);
            head.back((&outputs, &slopes), room.logits, room.d_normed, sums, crew)
        })
    }

    /// Computes these rows' scores, asks `loss` for its derivatives, and adds to the gradient.
    pub(super) fn train_scores(
        &self,
        gradient: &mut [f32],
        batch: &PackedBatch,
        rows: &[usize],
        loss: impl FnOnce(&[f32]) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.train(gradient, batch, rows, |_, room, gradient, _| {
            let head = self.score_head(room.normed);
            let slopes = loss(&head.scores())?;
            head.back(&slopes, room.d_normed, gradient.get_mut(self.slots.head.weight.clone()));
            Ok(())
        })
    }

    fn language_head<'a>(
        &'a self,
        pass: &'a Pass<'a, E>,
        normed: &'a [E],
        (targets, candidates): (&'a [u32], Candidates<'a>),
        options: &'a LogprobOptions,
    ) -> LanguageHead<'a, E> {
        let row = self.slots.head.outputs * size_of::<E>();
        let step = (self.logit_bytes / row).max(1);
        LanguageHead { pass, normed, targets, candidates, options, step }
    }

    fn score_head<'a>(&'a self, normed: &'a [E]) -> ScoreHead<'a, E> {
        let Linear { weight, inputs, .. } = &self.slots.head;
        ScoreHead { weight: &self.weights[weight.clone()], normed, hidden: *inputs }
    }

    fn pass<'a>(&'a self, sequences: &'a Sequences<'a>, wanted: &'a [usize]) -> Pass<'a, E> {
        Pass { spec: self.spec, slots: self.slots, weights: self.weights, sequences, wanted }
    }

    /// Goes forward to the wanted rows and lets `head` make something of them.
    fn scored<R: Default>(
        &self,
        batch: &PackedBatch,
        wanted: &[usize],
        head: impl FnOnce(&Pass<'_, E>, &[E], &mut Vec<E>, &mut Crew) -> Result<R>,
    ) -> Result<R> {
        if wanted.is_empty() {
            return Ok(R::default());
        }
        let sequences = Sequences::new(self.spec, batch);
        let pass = self.pass(&sequences, wanted);
        compute::with(|crew, work: &mut Workspace<E>| {
            at_least(&mut work.streams, 2);
            at_least(&mut work.traces, 1);
            pass.embed(&mut work.streams[0]);
            let [before, after, ..] = &mut work.streams[..] else { return Ok(R::default()) };
            let trace = &mut work.traces[0];
            for layer in 0..self.slots.layers.len() {
                pass.layer(layer, (before, after), trace, &mut work.buffers, crew)?;
                std::mem::swap(before, after);
            }
            let last = room(before, wanted.len() * self.spec.hidden_size);
            let normed = pass.norm(last, &self.slots.norm, &mut work.last, crew);
            head(&pass, normed, &mut work.logits, crew)
        })
    }

    /// Goes forward to the wanted rows, lets `head` go on and back to them, and goes back through the layers.
    fn train(
        &self,
        gradient: &mut [f32],
        batch: &PackedBatch,
        wanted: &[usize],
        head: impl FnOnce(&Pass<'_, E>, HeadRoom<'_, E>, &mut [f32], &mut Crew) -> Result<()>,
    ) -> Result<()> {
        if wanted.is_empty() {
            return Ok(()); // nothing of interest in this micro-batch: its share of the gradient is zero
        }
        let sequences = Sequences::new(self.spec, batch);
        let pass = self.pass(&sequences, wanted);
        compute::with(|crew, work: &mut Workspace<E>| {
            let layers = self.slots.layers.len();
            let Workspace { streams, traces, buffers, d_stream, last, d_last, logits } = work;
            at_least(streams, layers + 1);
            at_least(traces, if self.checkpointing { 1 } else { layers });
            let trace_of = |layer: usize| if self.checkpointing { 0 } else { layer };
            pass.embed(&mut streams[0]);
            for layer in 0..layers {
                let (before, after) = streams.split_at_mut(layer + 1);
                let stream = (&before[layer][..], &mut after[0]);
                pass.layer(layer, stream, &mut traces[trace_of(layer)], buffers, crew)?;
            }

            let len = wanted.len() * self.spec.hidden_size;
            let end = room(&mut streams[layers], len);
            let normed = pass.norm(end, &self.slots.norm, last, crew);
            let d_normed = room(d_last, len);
            let weight = &mut buffers.weight;
            head(&pass, HeadRoom { normed, d_normed, logits, weight }, gradient, crew)?;
            let d_end = zeros(d_stream, len);
            let sums = (&mut *gradient, &mut buffers.partial);
            pass.norm_back(end, &self.slots.norm, (d_normed, d_end), sums, crew);

            // Nobody asks for what lies before the first layer that learns.
            let first = self.slots.first;
            for layer in (first..layers).rev() {
                let (before, after) = streams.split_at_mut(layer + 1);
                let (input, trace) = (&before[layer][..], &mut traces[trace_of(layer)]);
                if self.checkpointing {
                    pass.layer(layer, (input, &mut after[0]), trace, buffers, crew)?;
                }
                pass.layer_back(layer, (input, trace), (buffers, d_stream), gradient, crew)?;
            }
            if first == 0 {
                pass.embed_back(room(d_stream, sequences.len() * self.spec.hidden_size), gradient);
            }
            Ok(())
        })
    }
}

/// No candidates.
const NONE: Candidates<'_> = Candidates { ids: &[], each: 0 };

fn candidates(batch: &PackedBatch) -> Candidates<'_> {
    Candidates { ids: &batch.candidates, each: batch.candidates_per_row() }
}

/// What a head works on.
struct HeadRoom<'a, E> {
    normed: &'a [E],
    d_normed: &'a mut [E],
    logits: &'a mut Vec<E>,
    weight: &'a mut Vec<E>,
}
