//! Where a pass finds a model's parameters in the flat buffer, and their gradients in theirs, which ends where what learns
//! does.

use std::ops::Range;

use crate::{
    model::{Head, ModelSpec},
    trainer::torch::layout::{AdapterPlace, Layout},
};

/// `x W^T + b`, W being `[outputs, inputs]`, and what an adapter adds.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) weight: Range<usize>,
    pub(super) bias: Option<Range<usize>>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) adapter: Option<AdapterPlace>,
}

/// The parameters of a layer.
#[derive(Clone, Debug)]
pub(super) struct LayerSlots {
    pub(super) attention_norm: Range<usize>,
    pub(super) qkv: Linear,
    /// Of q and k.
    pub(super) head_norms: Option<[Range<usize>; 2]>,
    pub(super) output: Linear,
    pub(super) mlp_norm: Range<usize>,
    /// Rows of up, then of gate.
    pub(super) up_gate: Linear,
    pub(super) down: Linear,
}

/// The parameters of a model.
#[derive(Clone, Debug)]
pub(in crate::trainer::torch) struct Slots {
    pub(super) embedding: Range<usize>,
    pub(super) layers: Vec<LayerSlots>,
    pub(super) norm: Range<usize>,
    pub(super) head: Linear,
    /// The first layer with something that learns, in it or before it.
    pub(super) first: usize,
}

impl Slots {
    /// Finds them; `None` where one is missing, which no layout of the model's own lacks.
    pub(in crate::trainer::torch) fn find(spec: &ModelSpec, layout: &Layout) -> Option<Self> {
        let find = Find(layout);
        let head = match spec.head {
            Head::LanguageModel if spec.tie_word_embeddings => "model.embed_tokens",
            Head::LanguageModel => "lm_head",
            Head::Score => "score",
        };
        let learns_in = |layer: &usize| {
            let of = |name: &str| name.starts_with(&format!("model.layers.{layer}."));
            layout.learned_slots().any(|slot| of(&slot.name))
        };
        let embedding = find.range("model.embed_tokens.weight")?;
        let first = match embedding.start < layout.learned {
            true => 0,
            false => (0..spec.num_layers).find(learns_in).unwrap_or(spec.num_layers),
        };
        Some(Self {
            embedding,
            first,
            layers: (0..spec.num_layers)
                .map(|layer| find.layer(spec, layer))
                .collect::<Option<_>>()?,
            norm: find.range("model.norm.weight")?,
            head: find.linear(head)?,
        })
    }

    /// Returns the same places but for the adapter's, which a pass then leaves out.
    pub(in crate::trainer::torch) fn without_adapter(&self) -> Self {
        let mut slots = self.clone();
        for layer in &mut slots.layers {
            for linear in [&mut layer.qkv, &mut layer.output, &mut layer.up_gate, &mut layer.down] {
                linear.adapter = None;
            }
        }
        slots
    }
}

struct Find<'a>(&'a Layout);

impl Find<'_> {
    fn range(&self, key: &str) -> Option<Range<usize>> {
        let group = self.0.groups.iter().find(|group| group.key == key)?;
        Some(group.offset()..group.offset() + group.elements())
    }

    fn linear(&self, name: &str) -> Option<Linear> {
        let key = format!("{name}.weight");
        let shape = self.0.groups.iter().find(|group| group.key == key)?.shape();
        Some(Linear {
            weight: self.range(&key)?,
            bias: self.range(&format!("{name}.bias")),
            inputs: shape[1] as usize,
            outputs: shape[0] as usize,
            adapter: self.0.adapter(name),
        })
    }

    fn layer(&self, spec: &ModelSpec, layer: usize) -> Option<LayerSlots> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let norm = |part: &str| self.range(&name(&format!("{part}.weight")));
        let head_norms = match spec.qk_norm {
            true => Some([norm("self_attn.q_norm")?, norm("self_attn.k_norm")?]),
            false => None,
        };
        Some(LayerSlots {
            attention_norm: norm("input_layernorm")?,
            qkv: self.linear(&name("self_attn.qkv_proj"))?,
            head_norms,
            output: self.linear(&name("self_attn.o_proj"))?,
            mlp_norm: norm("post_attention_layernorm")?,
            up_gate: self.linear(&name("mlp.up_gate_proj"))?,
            down: self.linear(&name("mlp.down_proj"))?,
        })
    }
}
