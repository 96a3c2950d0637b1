//! A transformer in libtorch: backward passes.

use tch::Tensor;

use super::{
    Error, Model, Result,
    cpu::{Cpu, Format},
    head::{Aims, Outputs, check, to_host},
    in_format,
    packed::{Packed, Rows},
    parameters::Parameters,
};
use crate::{
    model::Head,
    trainer::{
        batch::PackedBatch,
        learner::{Entropy, LogprobOptions, TokenGradient, TokenLogprobs},
    },
};

/// A forward pass that can be gone back through.
struct Trace {
    packed: Packed,
    rows: Rows,
    /// Each layer's input, then the output. With checkpointing each is cut off from the one before.
    stream: Vec<Tensor>,
}

impl Model {
    /// Computes the selected tokens' log-probs, asks `loss` for its gradient with respect to them, and adds the
    /// gradient with respect to the parameters. After an error, call [`Model::clear_gradient`].
    ///
    /// # Errors
    /// When the model has another head or is frozen, when the batch does not fit it, or when the gradient has another
    /// length than the selection.
    pub fn train_logprobs(
        &mut self,
        batch: &PackedBatch,
        options: &LogprobOptions,
        loss: impl FnOnce(&TokenLogprobs) -> TokenGradient,
    ) -> Result<()> {
        self.check_head(Head::LanguageModel)?;
        check(options.temperature)?;
        if self.slots.is_some() {
            self.check_batch(batch, &batch.selected)?;
            self.check_aims(batch)?;
            return in_format!(self.parameters.storage.compute, E => {
                let (cpu, gradient) = self.own_training::<E>()?;
                cpu.train_logprobs(gradient, batch, options, |outputs| {
                    checked(loss(outputs), batch, options)
                })
            });
        }
        let aims = self.aims(batch)?;
        self.train(batch, &batch.selected, |model, rows| {
            if model.head.chunks(batch.selected.len()).len() == 1 {
                // The usual case: the graph of the logits fits, so nothing is computed twice.
                let outputs = model.head.logprobs(rows, &aims, options)?;
                let gradient = checked(loss(&outputs.to_host()?), batch, options)?;
                return outputs.backward(&gradient, 0);
            }
            let values = tch::no_grad(|| model.chunked_outputs(rows, &aims, options))?;
            let gradient = checked(loss(&values), batch, options)?;
            let mut start = 0;
            model.each_chunk(rows, &aims, |rows, aims| {
                let outputs = model.head.logprobs(rows, aims, options)?;
                outputs.backward(&gradient, start)?;
                start += aims.targets.size()[0] as usize;
                Ok(())
            })
        })
    }

    /// Computes the score head's numbers at each selected row, label by label, asks `loss` for its gradient with respect to them, and
    /// adds the gradient with respect to the parameters. After an error, call [`Model::clear_gradient`].
    ///
    /// # Errors
    /// As [`Model::train_logprobs`].
    pub fn train_values(
        &mut self,
        batch: &PackedBatch,
        loss: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<()> {
        self.train_score_rows(batch, &batch.selected, loss)
    }

    /// Computes each sequence's scores, label by label, asks `loss` for its gradient with respect to them, and adds the gradient with
    /// respect to the parameters. After an error, call [`Model::clear_gradient`].
    ///
    /// # Errors
    /// As [`Model::train_logprobs`].
    pub fn train_scores(
        &mut self,
        batch: &PackedBatch,
        loss: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<()> {
        self.train_score_rows(batch, &batch.last_rows().collect::<Vec<_>>(), loss)
    }

    fn train_score_rows(
        &mut self,
        batch: &PackedBatch,
        rows: &[usize],
        loss: impl FnOnce(&[f32]) -> Vec<f32>,
    ) -> Result<()> {
        self.check_head(Head::Score)?;
        let numbers = rows.len() * self.spec.num_labels();
        if self.slots.is_some() {
            self.check_batch(batch, rows)?;
            return in_format!(self.parameters.storage.compute, E => {
                let (cpu, gradient) = self.own_training::<E>()?;
                cpu.train_scores(gradient, batch, rows, |scores| {
                    let gradient = loss(scores);
                    check_length(gradient.len(), numbers)?;
                    Ok(gradient)
                })
            });
        }
        self.train(batch, rows, |model, stream| {
            let scores = model.head.scores(stream)?;
            let gradient = loss(&to_host(&scores)?);
            check_length(gradient.len(), numbers)?;
            seed(&scores, &gradient)?.f_backward().map_err(Error::from)
        })
    }

    /// Returns the model as passes of our own see it, and the gradient they add to.
    fn own_training<E: Format>(&mut self) -> Result<(Cpu<'_, E>, &mut [f32])> {
        let Some(slots) = &self.slots else {
            return Err(Error::input("model", "computed by passes of our own", "autograd's"));
        };
        let (weights, gradient) = self.parameters.own_parts()?;
        let (spec, logit_bytes) = (&self.spec, self.head.logit_bytes());
        let checkpointing = self.options.activation_checkpointing;
        Ok((Cpu { spec, slots, weights, checkpointing, logit_bytes }, gradient))
    }

    /// Checks that every weight is finite.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check_finite(&self) -> Result<()> {
        let layout = &self.parameters.layout;
        // What does not learn was finite when it was loaded.
        tch::no_grad(|| Parameters::check_finite(layout, &self.parameters.master()?, "weight"))
    }

    /// Sets the gradient to zero.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn clear_gradient(&mut self) -> Result<()> {
        tch::no_grad(|| self.parameters.clear_gradient())
    }

    /// Goes forward to the wanted rows, lets `head` go on and back to them, and goes back through the layers.
    fn train(
        &mut self,
        batch: &PackedBatch,
        rows: &[usize],
        head: impl FnOnce(&Self, &Tensor) -> Result<()>,
    ) -> Result<()> {
        self.parameters.enable_gradient()?;
        let packed = Packed::new(&self.spec, batch, self.tensor_options())?;
        let rows = Packed::rows(batch, rows, self.device())?;
        if rows.len == 0 {
            return Ok(()); // nothing of interest in this micro-batch: its share of the gradient is zero
        }
        let trace = self.trace(packed, rows)?;
        self.give_back(batch.tokens.len() * self.spec.hidden_size * self.layers.len());
        let last = cut(&trace.stream[trace.stream.len() - 1])?;
        head(self, &last)?;
        self.backward(&trace, last.f_grad()?)?;
        tch::no_grad(|| self.parameters.collect_gradient())
    }

    fn trace(&self, packed: Packed, rows: Rows) -> Result<Trace> {
        let checkpointing = self.options.activation_checkpointing;
        let forward = || -> Result<Vec<Tensor>> {
            let mut stream = vec![self.embed(&packed)?];
            for layer in 0..self.layers.len() {
                stream.push(self.layer(layer, &stream[layer], &packed, &rows)?);
                if !checkpointing {
                    // The graph keeps what it needs of the layer's input.
                    stream[layer] = Tensor::new();
                }
            }
            Ok(stream)
        };
        let stream = if checkpointing { tch::no_grad(forward)? } else { forward()? };
        Ok(Trace { packed, rows, stream })
    }

    /// Carries the gradient with respect to the stream's end back to the parameters.
    fn backward(&self, trace: &Trace, mut gradient: Tensor) -> Result<()> {
        if !self.options.activation_checkpointing {
            return pull_if_learned(&trace.stream[self.layers.len()], &gradient);
        }
        for layer in (0..self.layers.len()).rev() {
            let input = cut(&trace.stream[layer])?;
            let output = self.layer(layer, &input, &trace.packed, &trace.rows)?;
            pull(&output, &gradient)?;
            gradient = input.f_grad()?;
        }
        pull_if_learned(&self.embed(&trace.packed)?, &gradient)
    }

    pub(super) fn chunked_outputs(
        &self,
        rows: &Tensor,
        aims: &Aims,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs> {
        let mut values = TokenLogprobs::default();
        self.each_chunk(rows, aims, |rows, aims| {
            let chunk = self.head.logprobs(rows, aims, options)?.to_host()?;
            values.logprobs.extend(chunk.logprobs);
            values.entropy.extend(chunk.entropy);
            values.top.extend(chunk.top);
            values.candidates.extend(chunk.candidates);
            Ok(())
        })?;
        Ok(values)
    }
}

impl Outputs {
    fn to_host(&self) -> Result<TokenLogprobs> {
        let optional =
            |tensor: &Option<Tensor>| tensor.as_ref().map_or_else(|| Ok(Vec::new()), to_host);
        Ok(TokenLogprobs {
            logprobs: to_host(&self.logprobs)?,
            entropy: optional(&self.entropy)?,
            top: optional(&self.top)?.into_iter().map(|top| top > 0.0).collect(),
            candidates: optional(&self.candidates)?,
        })
    }

    /// Goes back from these outputs, whose part of the gradient begins at `start`.
    fn backward(&self, gradient: &TokenGradient, start: usize) -> Result<()> {
        let range = start..start + self.logprobs.size()[0] as usize;
        let mut total = seed(&self.logprobs, &gradient.logprobs[range.clone()])?;
        if let (Some(entropy), false) = (&self.entropy, gradient.entropy.is_empty()) {
            total = total.f_add(&seed(entropy, &gradient.entropy[range.clone()])?)?;
        }
        if let (Some(candidates), false) = (&self.candidates, gradient.candidates.is_empty()) {
            let each = candidates.numel() / range.len().max(1);
            let range = range.start * each..range.end * each;
            total = total.f_add(&seed(candidates, &gradient.candidates[range])?)?;
        }
        Ok(total.f_backward()?)
    }
}

fn checked(
    gradient: TokenGradient,
    batch: &PackedBatch,
    options: &LogprobOptions,
) -> Result<TokenGradient> {
    let rows = batch.selected.len();
    check_length(gradient.logprobs.len(), rows)?;
    if !gradient.candidates.is_empty() {
        check_length(gradient.candidates.len(), batch.candidates.len())?;
    }
    if !gradient.entropy.is_empty() {
        check_length(gradient.entropy.len(), rows)?;
        if options.entropy != Entropy::Train {
            return Err(Error::input(
                "entropy",
                "trained where its gradient is given",
                format!("{:?}", options.entropy),
            ));
        }
    }
    Ok(gradient)
}

fn check_length(got: usize, rows: usize) -> Result<()> {
    if got == rows {
        return Ok(());
    }
    Err(Error::input("gradient", format!("one number for each of {rows} outputs"), got))
}

/// Returns a scalar whose gradient with respect to `outputs` is `gradient`.
fn seed(outputs: &Tensor, gradient: &[f32]) -> Result<Tensor> {
    let gradient = Tensor::f_from_slice(gradient)?.f_to_device(outputs.device())?;
    Ok(outputs.f_dot(&gradient)?)
}

/// Does what [`pull`] does, unless nothing on the way learns.
fn pull_if_learned(output: &Tensor, gradient: &Tensor) -> Result<()> {
    if output.requires_grad() { pull(output, gradient) } else { Ok(()) }
}

/// Goes back from `output`, given the gradient with respect to it.
fn pull(output: &Tensor, gradient: &Tensor) -> Result<()> {
    Ok(output.f_mul(gradient)?.f_sum(output.kind())?.f_backward()?)
}

/// Returns the same numbers as a new leaf that collects a gradient.
fn cut(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_detach()?.f_set_requires_grad(true)?)
}
