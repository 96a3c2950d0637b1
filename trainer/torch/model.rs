//! A transformer in libtorch: forward passes.

use tch::{Kind, Tensor};

use super::{
    Error, Result,
    attention::{Attention, Shape},
    cpu::{Cpu, Format, Slots},
    head::{Aims, HeadLayer, MAX_LOGITS, check, to_host},
    in_format,
    layer::{Adapter, Layer, Linear, Norm},
    layout::AdapterPlace,
    learns::Learns,
    libtorch,
    packed::{self, Packed, Rows, indices},
    parameters::{Parameters, Storage, kind_of},
};
use crate::{
    ffi::allocator,
    model::{Head, Lora, ModelSpec, lora_name},
    rollout::{Dtype, Weights},
    trainer::{
        batch::PackedBatch,
        config::Device,
        learner::{LogprobOptions, TokenLogprobs, TopLogprobs},
    },
};

/// Numbers (16 MiB of f32) above which libtorch's leftovers count.
const MANY: usize = 1 << 22;

/// How a model is held and computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// Where.
    pub device: Device,
    /// The format of the forward and backward pass: f32 or bf16. Master weights, gradients summed over micro-batches,
    /// soft-maxes and reductions are f32 in any case. libtorch computes bf16 many times slower than f32 on a CPU without
    /// AVX-512.
    pub compute: Dtype,
    /// Keep only each layer's input for the backward pass and compute the rest again: less memory, a third more work.
    pub activation_checkpointing: bool,
    /// Only ever scored with: no master weights, no gradient.
    pub frozen: bool,
    /// Let libtorch's autograd compute on the CPU too, instead of passes of our own. Slower, and what those are judged by;
    /// on a GPU there is nothing else.
    pub autograd: bool,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            device: Device::Cpu,
            compute: Dtype::F32,
            activation_checkpointing: false,
            frozen: false,
            autograd: false,
        }
    }
}

/// A transformer that can be scored with and trained.
#[derive(Debug)]
pub struct Model {
    pub(super) spec: ModelSpec,
    pub(super) options: ModelOptions,
    pub(super) parameters: Parameters,
    pub(super) embedding: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) head: HeadLayer,
    /// Where passes of our own find the parameters; `None` where passes are libtorch's.
    pub(super) slots: Option<Slots>,
    /// The same without the adapter, where there is one.
    bare: Option<Bare>,
}

/// The parts of a model whose adapter is left out. They are views of the same weights.
#[derive(Debug)]
struct Bare {
    layers: Vec<Layer>,
    slots: Option<Slots>,
}

impl Model {
    /// Builds a model from a description and its weights, which are copied (and converted to f32).
    ///
    /// # Errors
    /// When a tensor is missing, extra, of another shape or not finite; when the device cannot be used; when the
    /// compute format is neither f32 nor bf16; when there is no memory left.
    pub fn load(spec: &ModelSpec, weights: &Weights, options: &ModelOptions) -> Result<Self> {
        Self::load_with(spec, weights, options, &Learns::default())
    }

    /// Does what [`Model::load`] does, for a model of which only a part learns, or an adapter beside it.
    ///
    /// # Errors
    /// As [`Model::load`]; when what is to stay is no parameter of the model; when an adapter does not fit it.
    pub fn load_with(
        spec: &ModelSpec,
        weights: &Weights,
        options: &ModelOptions,
        learns: &Learns,
    ) -> Result<Self> {
        if options.compute == Dtype::F16 {
            return Err(Error::input("compute", "f32 or bf16", options.compute));
        }
        let device = libtorch::device(options.device)?;
        let storage = Storage {
            device,
            compute: kind_of(options.compute),
            frozen: options.frozen,
            autograd: options.autograd || device != tch::Device::Cpu,
        };
        let parameters = Parameters::load(spec, weights, storage, learns)?;
        let build = Build { spec, parameters: &parameters, adapts: true };
        let embedding = build.leaf("model.embed_tokens.weight")?;
        let layers = build.layers()?;
        let head = build.head()?;
        let slots = match storage.autograd {
            true => None,
            false => Slots::find(spec, &parameters.layout),
        };
        let bare = match learns.lora() {
            Some(_) => {
                let slots = slots.as_ref().map(Slots::without_adapter);
                Some(Bare { layers: Build { adapts: false, ..build }.layers()?, slots })
            }
            None => None,
        };
        let (spec, options) = (spec.clone(), *options);
        Ok(Self { spec, options, parameters, embedding, layers, head, slots, bare })
    }

    /// Returns what the model looks like.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Returns how it is held and computed.
    pub fn options(&self) -> &ModelOptions {
        &self.options
    }

    /// Replaces every weight that learns by those given, as [`Model::learned`] has them: all or none. The gradient stays.
    ///
    /// # Errors
    /// As [`Model::load`]; and when a reader of the present weights does not let go in time.
    pub fn replace_learned(&mut self, weights: &Weights) -> Result<()> {
        self.parameters.replace(weights)
    }

    /// Returns the adapter that learns in place of the weights, where one does.
    pub fn lora(&self) -> Option<&Lora> {
        self.parameters.layout.lora()
    }

    /// Returns the log-prob, and the entropy if asked for, of each selected token; no gradient is kept.
    ///
    /// # Errors
    /// When the model has another head, or the batch does not fit it.
    pub fn logprobs(&self, batch: &PackedBatch, options: &LogprobOptions) -> Result<TokenLogprobs> {
        self.logprobs_of((&self.layers, &self.slots), batch, options)
    }

    /// Does what [`Model::logprobs`] does with the adapter left out: the model is its own reference. `None` where there is
    /// no adapter.
    ///
    /// # Errors
    /// As [`Model::logprobs`].
    pub fn bare_logprobs(
        &self,
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<Option<TokenLogprobs>> {
        let bare = self.bare.as_ref();
        bare.map(|bare| self.logprobs_of((&bare.layers, &bare.slots), batch, options)).transpose()
    }

    fn logprobs_of(
        &self,
        (layers, slots): (&[Layer], &Option<Slots>),
        batch: &PackedBatch,
        options: &LogprobOptions,
    ) -> Result<TokenLogprobs> {
        self.check_head(Head::LanguageModel)?;
        check(options.temperature)?;
        if let Some(slots) = slots {
            self.check_batch(batch, &batch.selected)?;
            self.check_aims(batch)?;
            return in_format!(self.parameters.storage.compute, E => {
                self.own::<E>(slots)?.logprobs(batch, options)
            });
        }
        tch::no_grad(|| {
            let rows = self.rows(layers, batch, &batch.selected)?;
            self.chunked_outputs(&rows, &self.aims(batch)?, options)
        })
    }

    /// Returns each selected row's `count` most probable next tokens.
    ///
    /// # Errors
    /// As [`Model::logprobs`]; when the vocabulary has no `count` tokens, or `count` is 0.
    pub fn top_logprobs(
        &self,
        batch: &PackedBatch,
        count: usize,
        temperature: f64,
    ) -> Result<TopLogprobs> {
        self.check_head(Head::LanguageModel)?;
        check(temperature)?;
        if count == 0 || count > self.spec.vocab_size {
            let rule = format!("from 1 to the vocabulary's {}", self.spec.vocab_size);
            return Err(Error::input("most probable tokens", rule, count));
        }
        if let Some(slots) = &self.slots {
            self.check_batch(batch, &batch.selected)?;
            return in_format!(self.parameters.storage.compute, E => {
                self.own::<E>(slots)?.top_logprobs(batch, count, temperature)
            });
        }
        tch::no_grad(|| {
            let rows = self.rows(&self.layers, batch, &batch.selected)?;
            let mut top = TopLogprobs::default();
            for chunk in self.head.chunks(batch.selected.len()) {
                let rows = rows.f_narrow(0, chunk.start as i64, chunk.len() as i64)?;
                let all = self.head.all_logprobs(&rows, temperature)?;
                // A stable sort keeps the smaller id before its equals, which libtorch's top-k does not promise.
                let (logprobs, ids) = all.f_sort_stable(true, -1, true)?;
                let most = |tensor: Tensor| to_host(&tensor.f_narrow(1, 0, count as i64)?);
                top.logprobs.extend(most(logprobs)?);
                // As numbers of f32, which has every id below 2^24.
                top.ids.extend(most(ids)?.into_iter().map(|id| id as u32));
            }
            Ok(top)
        })
    }

    /// Returns the raw logits at each selected row, one row of `vocab_size` after the other, in f32.
    ///
    /// # Errors
    /// When the model has another head, or the batch does not fit it.
    pub fn logits(&self, batch: &PackedBatch) -> Result<Vec<f32>> {
        self.check_head(Head::LanguageModel)?;
        if let Some(slots) = &self.slots {
            self.check_batch(batch, &batch.selected)?;
            return in_format!(self.parameters.storage.compute, E => {
                self.own::<E>(slots)?.logits(batch)
            });
        }
        tch::no_grad(|| {
            to_host(&self.head.logits(&self.rows(&self.layers, batch, &batch.selected)?)?)
        })
    }

    /// Returns the score head's numbers at each selected row, label by label: of one label, the value of the state before
    /// the token was chosen.
    ///
    /// # Errors
    /// When the model has another head, or the batch does not fit it.
    pub fn values(&self, batch: &PackedBatch) -> Result<Vec<f32>> {
        self.score_rows(batch, &batch.selected)
    }

    /// Returns the score head's numbers at each sequence's last token, label by label.
    ///
    /// # Errors
    /// When the model has another head, or the batch does not fit it.
    pub fn scores(&self, batch: &PackedBatch) -> Result<Vec<f32>> {
        self.score_rows(batch, &batch.last_rows().collect::<Vec<_>>())
    }

    fn score_rows(&self, batch: &PackedBatch, rows: &[usize]) -> Result<Vec<f32>> {
        self.check_head(Head::Score)?;
        if let Some(slots) = &self.slots {
            self.check_batch(batch, rows)?;
            return in_format!(self.parameters.storage.compute, E => {
                self.own::<E>(slots)?.scores(batch, rows)
            });
        }
        tch::no_grad(|| to_host(&self.head.scores(&self.rows(&self.layers, batch, rows)?)?))
    }

    /// Returns the model as passes of our own see it.
    fn own<'a, E: Format>(&'a self, slots: &'a Slots) -> Result<Cpu<'a, E>> {
        Ok(Cpu {
            spec: &self.spec,
            slots,
            weights: self.parameters.numbers()?,
            checkpointing: self.options.activation_checkpointing,
            logit_bytes: self.head.logit_bytes(),
        })
    }

    /// Checks that a pass can go over these sequences, to these rows.
    pub(super) fn check_batch(&self, batch: &PackedBatch, rows: &[usize]) -> Result<()> {
        packed::check(&self.spec, batch)?;
        packed::check_rows(batch, rows)
    }

    pub(super) fn check_head(&self, head: Head) -> Result<()> {
        if self.spec.head == head {
            return Ok(());
        }
        Err(Error::input(
            "head",
            format!("{head:?} for this pass"),
            format!("{:?}", self.spec.head),
        ))
    }

    /// Returns the residual stream after the last layer at the wanted rows: `[rows, hidden]`.
    fn rows(&self, layers: &[Layer], batch: &PackedBatch, rows: &[usize]) -> Result<Tensor> {
        let packed = Packed::new(&self.spec, batch, self.tensor_options())?;
        let rows = Packed::rows(batch, rows, self.device())?;
        if rows.len == 0 {
            return Ok(Tensor::f_zeros([0, self.spec.hidden_size as i64], self.tensor_options())?);
        }
        let mut x = self.embed(&packed)?;
        for (n, layer) in layers.iter().enumerate() {
            let is_last = n + 1 == layers.len();
            x = layer.forward(&x, &packed, is_last.then_some(&rows))?;
        }
        Ok(x)
    }

    pub(super) fn embed(&self, packed: &Packed) -> Result<Tensor> {
        Ok(Tensor::f_embedding(&self.embedding, &packed.tokens, -1, false, false)?)
    }

    /// Computes one layer; the last one at the wanted rows only.
    pub(super) fn layer(
        &self,
        layer: usize,
        x: &Tensor,
        packed: &Packed,
        rows: &Rows,
    ) -> Result<Tensor> {
        let is_last = layer + 1 == self.layers.len();
        self.layers[layer].forward(x, packed, is_last.then_some(rows))
    }

    pub(super) fn each_chunk(
        &self,
        rows: &Tensor,
        aims: &Aims,
        mut visit: impl FnMut(&Tensor, &Aims) -> Result<()>,
    ) -> Result<()> {
        for chunk in self.head.chunks(rows.size()[0] as usize) {
            let (start, len) = (chunk.start as i64, chunk.len() as i64);
            visit(&rows.f_narrow(0, start, len)?, &aims.part(&chunk)?)?;
        }
        Ok(())
    }

    /// Checks that each selected row has a next token, and as many candidates as the others.
    pub(super) fn check_aims(&self, batch: &PackedBatch) -> Result<()> {
        if let Some(row) = batch.selected.iter().find(|&&row| row + 1 >= batch.tokens.len()) {
            return Err(Error::input("selected", "a row with a next token", row));
        }
        let (rows, candidates) = (batch.selected.len(), batch.candidates.len());
        if candidates != rows * batch.candidates_per_row() {
            let rule = format!("as many for each of {rows} rows");
            return Err(Error::input("candidates", rule, candidates));
        }
        let vocab = self.spec.vocab_size;
        match batch.candidates.iter().find(|&&id| id as usize >= vocab) {
            Some(id) => Err(Error::input("candidates", format!("below {vocab}"), id)),
            None => Ok(()),
        }
    }

    pub(super) fn aims(&self, batch: &PackedBatch) -> Result<Aims> {
        self.check_aims(batch)?;
        let ids = |ids: &mut dyn Iterator<Item = u32>| {
            indices(&ids.map(i64::from).collect::<Vec<_>>(), self.device())
        };
        let shape = [batch.selected.len() as i64, batch.candidates_per_row() as i64];
        let candidates = match shape[1] {
            0 => None,
            _ => Some(ids(&mut batch.candidates.iter().copied())?.f_view(shape)?),
        };
        Ok(Aims { targets: ids(&mut batch.targets())?, candidates })
    }

    /// Gives what was freed back to the system, where so many numbers say that it is worth the while.
    pub(super) fn give_back(&self, numbers: usize) {
        if numbers >= MANY && self.device() == tch::Device::Cpu {
            allocator::trim();
        }
    }

    pub(super) fn device(&self) -> tch::Device {
        self.parameters.storage.device
    }

    pub(super) fn tensor_options(&self) -> (Kind, tch::Device) {
        (self.parameters.storage.compute, self.device())
    }
}

/// Hands the leaves out to the parts.
struct Build<'a> {
    spec: &'a ModelSpec,
    parameters: &'a Parameters,
    /// Whether the adapter is one of them.
    adapts: bool,
}

impl Build<'_> {
    fn leaf(&self, key: &str) -> Result<Tensor> {
        let found = self.parameters.leaf(key);
        found.ok_or_else(|| Error::input("parameter", "one of the model's", key))
    }

    fn linear(&self, name: &str) -> Result<Linear> {
        let bias = self.parameters.leaf(&format!("{name}.bias"));
        let place = self.parameters.layout.adapter(name).filter(|_| self.adapts);
        let adapter = place.map(|place| self.adapter(&place)).transpose()?;
        Ok(Linear { weight: self.leaf(&format!("{name}.weight"))?, bias, adapter })
    }

    fn adapter(&self, place: &AdapterPlace) -> Result<Adapter> {
        Ok(Adapter {
            a: self.leaf(&lora_name(&place.key, "lora_A"))?,
            b: self.leaf(&lora_name(&place.key, "lora_B"))?,
            parts: place.parts.iter().map(|part| part.columns.clone()).collect(),
            rank: place.rank,
            scale: place.scale,
        })
    }

    fn layers(&self) -> Result<Vec<Layer>> {
        (0..self.spec.num_layers).map(|layer| self.layer(layer)).collect()
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        Ok(Norm { weight: self.leaf(&format!("{name}.weight"))?, eps: self.spec.rms_norm_eps })
    }

    fn layer(&self, layer: usize) -> Result<Layer> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let head_norm = |part| self.spec.qk_norm.then(|| self.norm(&name(part))).transpose();
        Ok(Layer {
            attention_norm: self.norm(&name("input_layernorm"))?,
            attention: Attention {
                qkv: self.linear(&name("self_attn.qkv_proj"))?,
                output: self.linear(&name("self_attn.o_proj"))?,
                q_norm: head_norm("self_attn.q_norm")?,
                k_norm: head_norm("self_attn.k_norm")?,
                shape: Shape::from(self.spec),
            },
            mlp_norm: self.norm(&name("post_attention_layernorm"))?,
            up_gate: self.linear(&name("mlp.up_gate_proj"))?,
            down: self.linear(&name("mlp.down_proj"))?,
        })
    }

    fn head(&self) -> Result<HeadLayer> {
        let project = match self.spec.head {
            Head::LanguageModel if self.spec.tie_word_embeddings => "model.embed_tokens",
            Head::LanguageModel => "lm_head",
            Head::Score => "score",
        };
        let (norm, project) = (self.norm("model.norm")?, self.linear(project)?);
        Ok(HeadLayer { norm, project, max_logits: MAX_LOGITS })
    }
}
