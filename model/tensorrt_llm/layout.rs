//! How TensorRT-LLM cuts a model over its ranks.

use std::ops::Range;

use super::error::{Result, rule};
use crate::model::{Family, Head, ModelSpec};

/// How the embedding matrix `[vocabulary, hidden]` is cut (`use_parallel_embedding`, `embedding_sharding_dim`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EmbeddingSplit {
    /// Each rank has all of it.
    #[default]
    Replicated,
    /// Each rank has some rows (dimension 0); the vocabulary is padded to a multiple of the ranks.
    Vocabulary,
    /// Each rank has some columns (dimension 1).
    Hidden,
}

/// What a model's tensors look like in TensorRT-LLM, beyond its [`ModelSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Number of ranks. There is no pipeline parallelism here.
    pub tensor_parallel: usize,
    /// Whether gate and up are one tensor, `mlp.fused_fc`: so in an engine built with `use_fused_mlp`, the default, never
    /// in a checkpoint.
    pub fused_mlp: bool,
    /// How the embedding is cut.
    pub embedding: EmbeddingSplit,
    /// Whether the head has no tensor of its own: so in the engine of a tied model wherever embedding and head have the
    /// same shape on each rank, never in a checkpoint.
    pub share_embedding: bool,
}

impl Layout {
    /// Returns the layout of a checkpoint: every tensor by itself, embedding on each rank.
    pub fn checkpoint(tensor_parallel: usize) -> Self {
        Self {
            tensor_parallel,
            fused_mlp: false,
            embedding: EmbeddingSplit::Replicated,
            share_embedding: false,
        }
    }

    /// Returns the layout of an engine that is built from this one's checkpoint, where `fused_mlp` is `use_fused_mlp`.
    ///
    /// TensorRT-LLM shares the embedding of a tied model by itself, wherever shapes allow. What an engine really holds is
    /// told by its own names: see [`Layout::as_named`].
    #[must_use]
    pub fn engine(self, spec: &ModelSpec, fused_mlp: bool) -> Self {
        let share_embedding = spec.tie_word_embeddings && self.embedding_fits_head();
        Self { fused_mlp, share_embedding, ..self }
    }

    /// Returns this layout with `fused_mlp` and `share_embedding` as an engine's own list of names tells them.
    #[must_use]
    pub fn as_named<'a>(self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut layout = Self { fused_mlp: false, share_embedding: true, ..self };
        for name in names {
            layout.fused_mlp |= name.ends_with(".mlp.fused_fc.weight");
            layout.share_embedding &= name != "lm_head.weight";
        }
        layout
    }

    /// Returns the rows of the head over all ranks: the vocabulary padded to a multiple of the ranks.
    pub fn padded_vocabulary(&self, spec: &ModelSpec) -> usize {
        spec.vocab_size.next_multiple_of(self.tensor_parallel)
    }

    /// Checks that the model can be cut so, and that TensorRT-LLM has such a model.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let ranks = self.tensor_parallel;
        rule(ranks >= 1, "tensor_parallel", "at least 1", ranks)?;
        let divides = |size: usize, name: &str| {
            let text = format!("a divisor of {name} ({size})");
            rule(size.is_multiple_of(ranks), "tensor_parallel", text, ranks)
        };
        divides(spec.num_heads, "num_attention_heads")?;
        divides(spec.intermediate_size, "intermediate_size")?;
        if self.embedding == EmbeddingSplit::Hidden {
            divides(spec.hidden_size, "hidden_size")?;
        }
        let kv = spec.num_kv_heads;
        rule(
            kv.is_multiple_of(ranks) || ranks.is_multiple_of(kv),
            "tensor_parallel",
            format!("a divisor or a multiple of num_key_value_heads ({kv})"),
            ranks,
        )?;
        self.check_head(spec)?;
        // Upstream gives Qwen's output projection no bias, whatever attention_bias says.
        let qwen3 = spec.family == Family::Qwen3;
        rule(!(qwen3 && spec.qkv_bias), "attention_bias", "false for qwen3 in TensorRT-LLM", true)
    }

    fn check_head(&self, spec: &ModelSpec) -> Result<()> {
        rule(
            spec.head == Head::LanguageModel,
            "head",
            "that of a language model",
            format!("{:?}", spec.head),
        )?;
        rule(
            spec.tie_word_embeddings || !self.share_embedding,
            "share_embedding",
            "false for an untied model, which has a lm_head.weight of its own",
            true,
        )?;
        rule(
            self.embedding_fits_head() || !self.share_embedding,
            "share_embedding",
            "false unless the embedding is cut along the vocabulary, as the head is",
            true,
        )
    }

    fn embedding_fits_head(&self) -> bool {
        self.tensor_parallel == 1 || self.embedding == EmbeddingSplit::Vocabulary
    }

    /// Returns the part of `size` that a rank has. The ranks divide the size, as checked.
    pub(super) fn part(&self, size: usize, rank: usize) -> Range<usize> {
        let each = size / self.tensor_parallel;
        rank * each..(rank + 1) * each
    }

    /// Returns the key and value heads of a rank. With more ranks than heads, neighbours have the same one.
    pub(super) fn kv_heads(&self, heads: usize, rank: usize) -> Range<usize> {
        if heads >= self.tensor_parallel {
            return self.part(heads, rank);
        }
        let head = rank * heads / self.tensor_parallel;
        head..head + 1
    }
}
