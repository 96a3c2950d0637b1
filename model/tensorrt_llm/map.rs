//! The weight map: every TensorRT-LLM tensor of a rank, as pieces of Hugging Face tensors.
//!
//! Beware: TensorRT-LLM's `mlp.fc` is `gate_proj` and its `mlp.gate` is `up_proj`. Swapped, a model still runs.
//!
//! Biases of row-parallel layers (`attention.dense`, `mlp.proj`) are whole on each rank, and each rank adds the whole
//! bias once, after the ranks' products have been summed (`RowLinear.collect_and_bias`).

use std::ops::Range;

use super::{
    EmbeddingSplit, Layout,
    error::{Result, rule},
};
use crate::{model::ModelSpec, rollout::TensorSpec};

/// Rows of a TensorRT-LLM tensor, over its whole width. A vector's rows are its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A rectangle of a Hugging Face tensor.
    Of {
        /// The Hugging Face name.
        tensor: String,
        /// Its rows.
        rows: Range<usize>,
        /// Its columns; `0..1` of a vector.
        columns: Range<usize>,
    },
    /// Padding.
    Zeros {
        /// How many.
        rows: usize,
    },
}

impl Piece {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        match self {
            Self::Of { rows, .. } => rows.len(),
            Self::Zeros { rows } => *rows,
        }
    }
}

/// A TensorRT-LLM tensor and what it is made of: its pieces, one below the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The TensorRT-LLM name.
    pub name: String,
    /// The extent of each dimension, on its rank. Row-major; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// The pieces from the first row to the last.
    pub pieces: Vec<Piece>,
}

impl Mapped {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the elements in a row: 1 for a vector.
    pub fn width(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    /// Returns name and shape.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec { name: self.name.clone(), shape: self.shape.clone() }
    }
}

/// Lists the tensors that a rank holds, in the order of the layers.
///
/// # Errors
/// When the model cannot be cut so, or TensorRT-LLM has no such model: names the rule.
///
/// # Example
/// ```no_run
/// use rollforge::model::{Checkpoint, tensorrt_llm::{Layout, tensors}};
/// let checkpoint = Checkpoint::open("models/tiny".as_ref())?;
/// for tensor in tensors(checkpoint.spec(), &Layout::checkpoint(2), 0)? {
///     println!("{} {:?} of {:?}", tensor.name, tensor.shape, tensor.pieces);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn tensors(spec: &ModelSpec, layout: &Layout, rank: usize) -> Result<Vec<Mapped>> {
    layout.check(spec)?;
    let ranks = layout.tensor_parallel;
    rule(rank < ranks, "rank", format!("below tensor_parallel ({ranks})"), rank)?;
    let mut map = Map { spec, layout, rank, list: Vec::new() };
    map.embedding();
    for layer in 0..spec.num_layers {
        map.layer(layer);
    }
    map.vector("transformer.ln_f.weight", "model.norm.weight", spec.hidden_size);
    map.head();
    Ok(map.list)
}

/// A list in the making.
struct Map<'a> {
    spec: &'a ModelSpec,
    layout: &'a Layout,
    rank: usize,
    list: Vec<Mapped>,
}

/// Which rows of a linear layer, and of which one, by its Hugging Face name.
type Rows = (String, Range<usize>);

impl Map<'_> {
    fn embedding(&mut self) {
        let (vocabulary, hidden) = (self.spec.vocab_size, self.spec.hidden_size);
        let (name, source) = ("transformer.vocab_embedding.weight", "model.embed_tokens");
        match self.layout.embedding {
            EmbeddingSplit::Replicated => {
                self.matrix(name, vec![of(source, 0..vocabulary)], 0..hidden)
            }
            EmbeddingSplit::Hidden => {
                let columns = self.layout.part(hidden, self.rank);
                self.matrix(name, vec![of(source, 0..vocabulary)], columns);
            }
            EmbeddingSplit::Vocabulary => self.vocabulary(name, source),
        }
    }

    fn head(&mut self) {
        match (self.layout.share_embedding, self.spec.tie_word_embeddings) {
            (true, _) => {}
            (false, true) => self.vocabulary("lm_head.weight", "model.embed_tokens"),
            (false, false) => self.vocabulary("lm_head.weight", "lm_head"),
        }
    }

    /// A matrix of one row per token id, cut along the ids: the last rows of the last ranks may be padding.
    fn vocabulary(&mut self, name: &str, source: &str) {
        let (ids, hidden) = (self.spec.vocab_size, self.spec.hidden_size);
        let part = self.layout.part(self.layout.padded_vocabulary(self.spec), self.rank);
        self.matrix(name, vec![of(source, part.start.min(ids)..part.end.min(ids))], 0..hidden);
        let mapped = self.list.last_mut().expect("a matrix was just added");
        let padding = part.len() - mapped.shape[0];
        mapped.shape[0] += padding;
        if padding > 0 {
            mapped.pieces.retain(|piece| piece.rows() > 0);
            mapped.pieces.push(Piece::Zeros { rows: padding });
        }
    }

    fn layer(&mut self, layer: usize) {
        let (trt, hf) = (format!("transformer.layers.{layer}"), format!("model.layers.{layer}"));
        let (hidden, head_dim) = (self.spec.hidden_size, self.spec.head_dim);
        let norm = |map: &mut Self, name: &str, source: &str, size| {
            map.vector(&format!("{trt}.{name}.weight"), &format!("{hf}.{source}.weight"), size);
        };
        norm(self, "input_layernorm", "input_layernorm", hidden);
        self.attention(&format!("{trt}.attention"), &format!("{hf}.self_attn"));
        if self.spec.qk_norm {
            norm(self, "attention.q_layernorm", "self_attn.q_norm", head_dim);
            norm(self, "attention.k_layernorm", "self_attn.k_norm", head_dim);
        }
        norm(self, "post_layernorm", "post_attention_layernorm", hidden);
        self.mlp(&format!("{trt}.mlp"), &format!("{hf}.mlp"));
    }

    fn attention(&mut self, trt: &str, hf: &str) {
        let spec = self.spec;
        let numbers = |heads: Range<usize>| heads.start * spec.head_dim..heads.end * spec.head_dim;
        let q = numbers(self.layout.part(spec.num_heads, self.rank));
        let kv = numbers(self.layout.kv_heads(spec.num_kv_heads, self.rank));
        let rows = vec![
            of(&format!("{hf}.q_proj"), q.clone()),
            of(&format!("{hf}.k_proj"), kv.clone()),
            of(&format!("{hf}.v_proj"), kv),
        ];
        self.column_parallel(&format!("{trt}.qkv"), rows, spec.qkv_bias);
        self.row_parallel(&format!("{trt}.dense"), &format!("{hf}.o_proj"), q, spec.o_bias);
    }

    fn mlp(&mut self, trt: &str, hf: &str) {
        let bias = self.spec.mlp_bias;
        let part = self.layout.part(self.spec.intermediate_size, self.rank);
        let (gate, up) = (
            of(&format!("{hf}.gate_proj"), part.clone()),
            of(&format!("{hf}.up_proj"), part.clone()),
        );
        if self.layout.fused_mlp {
            self.column_parallel(&format!("{trt}.fused_fc"), vec![up, gate], bias);
        } else {
            self.column_parallel(&format!("{trt}.fc"), vec![gate], bias);
            self.column_parallel(&format!("{trt}.gate"), vec![up], bias);
        }
        self.row_parallel(&format!("{trt}.proj"), &format!("{hf}.down_proj"), part, bias);
    }

    /// A linear layer cut along its outputs, its bias with them.
    fn column_parallel(&mut self, name: &str, rows: Vec<Rows>, bias: bool) {
        self.matrix(&format!("{name}.weight"), rows.clone(), 0..self.spec.hidden_size);
        if bias {
            let pieces = rows.into_iter().map(|(layer, rows)| piece(&layer, "bias", rows, 0..1));
            self.add(format!("{name}.bias"), None, pieces.collect());
        }
    }

    /// A linear layer cut along its inputs; its bias is whole.
    fn row_parallel(&mut self, name: &str, source: &str, columns: Range<usize>, bias: bool) {
        let hidden = self.spec.hidden_size;
        self.matrix(&format!("{name}.weight"), vec![of(source, 0..hidden)], columns);
        if bias {
            self.vector(&format!("{name}.bias"), &format!("{source}.bias"), hidden);
        }
    }

    fn matrix(&mut self, name: &str, rows: Vec<Rows>, columns: Range<usize>) {
        let weight = |(layer, rows): Rows| piece(&layer, "weight", rows, columns.clone());
        let pieces = rows.into_iter().map(weight).collect();
        self.add(name.to_owned(), Some(columns.len()), pieces);
    }

    fn vector(&mut self, name: &str, source: &str, size: usize) {
        let piece = Piece::Of { tensor: source.to_owned(), rows: 0..size, columns: 0..1 };
        self.add(name.to_owned(), None, vec![piece]);
    }

    fn add(&mut self, name: String, width: Option<usize>, pieces: Vec<Piece>) {
        let mut shape = vec![pieces.iter().map(Piece::rows).sum()];
        shape.extend(width);
        self.list.push(Mapped { name, shape, pieces });
    }
}

fn of(layer: &str, rows: Range<usize>) -> Rows {
    (layer.to_owned(), rows)
}

fn piece(layer: &str, part: &str, rows: Range<usize>, columns: Range<usize>) -> Piece {
    Piece::Of { tensor: format!("{layer}.{part}"), rows, columns }
}
