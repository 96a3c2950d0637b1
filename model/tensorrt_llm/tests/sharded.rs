//! What the ranks compute together, after TensorRT-LLM's layers, against the whole model, after transformers'.
//!
//! In f64, on one layer, so that only the order of sums differs. Rotary embeddings are left out: they turn each head by
//! itself, alike on both sides.

use std::time::Duration;

use super::*;

/// Rows of numbers.
type Matrix = Vec<Vec<f64>>;

const TOKENS: [usize; 5] = [3, 36, 0, 17, 29];

/// Looks a tensor up, as rows; a vector is one row.
fn get(weights: &Weights, name: &str) -> Option<Matrix> {
    let tensor = weights.get(name)?;
    let reading = weights.lease().read(Duration::ZERO).unwrap();
    let numbers: Vec<f64> = tensor.f32(&reading).iter().map(|&x| f64::from(x)).collect();
    let width = *tensor.shape.last().unwrap();
    Some(numbers.chunks(width).map(<[f64]>::to_vec).collect())
}

fn must(weights: &Weights, name: &str) -> Matrix {
    get(weights, name).unwrap_or_else(|| panic!("{name}"))
}

/// `x W^T + b`, where there is a bias.
fn linear(weights: &Weights, name: &str, x: &Matrix, with_bias: bool) -> Matrix {
    let matrix = must(weights, &format!("{name}.weight"));
    let bias = get(weights, &format!("{name}.bias")).filter(|_| with_bias);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let row = |x: &Vec<f64>| {
        let product = matrix.iter().enumerate();
        product.map(|(out, w)| dot(x, w) + bias.as_ref().map_or(0.0, |b| b[0][out])).collect()
    };
    x.iter().map(row).collect()
}

fn norm(x: &[f64], weight: &[f64]) -> Vec<f64> {
    let square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(weight).map(|(x, w)| x / (square + 1e-5).sqrt() * w).collect()
}

fn norms(x: &Matrix, weight: &Matrix) -> Matrix {
    x.iter().map(|row| norm(row, &weight[0])).collect()
}

fn add(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Causal attention of `q` heads over as many or fewer key and value heads, side by side.
fn attend(q: &Matrix, k: &Matrix, v: &Matrix, head_dim: usize) -> Matrix {
    let group = q[0].len() / k[0].len();
    let head = |row: &[f64], head: usize| row[head * head_dim..(head + 1) * head_dim].to_vec();
    let one = |at: usize, query_head: usize| {
        let (query, kv) = (head(&q[at], query_head), query_head / group);
        let score = |key: usize| {
            let dot: f64 = query.iter().zip(head(&k[key], kv)).map(|(a, b)| a * b).sum();
            (dot / (head_dim as f64).sqrt()).exp()
        };
        let scores: Vec<f64> = (0..=at).map(score).collect();
        let sum: f64 = scores.iter().sum();
        let mut mixed = vec![0.0; head_dim];
        for (key, score) in scores.iter().enumerate() {
            for (out, value) in mixed.iter_mut().zip(head(&v[key], kv)) {
                *out += score / sum * value;
            }
        }
        mixed
    };
    let heads = q[0].len() / head_dim;
    (0..q.len()).map(|at| (0..heads).flat_map(|head| one(at, head)).collect()).collect()
}

/// Norms each head's part of the rows, where the model does so.
fn head_norms(x: &Matrix, weight: Option<Matrix>) -> Matrix {
    let Some(weight) = weight else { return x.clone() };
    let row =
        |row: &Vec<f64>| row.chunks(weight[0].len()).flat_map(|h| norm(h, &weight[0])).collect();
    x.iter().map(row).collect()
}

/// The logits of the whole model, after transformers.
fn whole(spec: &ModelSpec, weights: &Weights) -> Matrix {
    let embedding = must(weights, "model.embed_tokens.weight");
    let x: Matrix = TOKENS.iter().map(|&id| embedding[id].clone()).collect();
    let layer = "model.layers.0";
    let h = norms(&x, &must(weights, &format!("{layer}.input_layernorm.weight")));
    let project = |name: &str, x: &Matrix| linear(weights, &format!("{layer}.{name}"), x, true);
    let part_norm = |name: &str| get(weights, &format!("{layer}.self_attn.{name}.weight"));
    let q = head_norms(&project("self_attn.q_proj", &h), part_norm("q_norm"));
    let k = head_norms(&project("self_attn.k_proj", &h), part_norm("k_norm"));
    let mixed = attend(&q, &k, &project("self_attn.v_proj", &h), spec.head_dim);
    let x = add(&x, &project("self_attn.o_proj", &mixed));
    let h = norms(&x, &must(weights, &format!("{layer}.post_attention_layernorm.weight")));
    let (gate, up) = (project("mlp.gate_proj", &h), project("mlp.up_proj", &h));
    let inner: Matrix = gate
        .iter()
        .zip(&up)
        .map(|(gate, up)| gate.iter().zip(up).map(|(&gate, up)| silu(gate) * up).collect())
        .collect();
    let x = add(&x, &project("mlp.down_proj", &inner));
    let h = norms(&x, &must(weights, "model.norm.weight"));
    let head = if spec.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
    linear(weights, head, &h, true)
}

/// The ranks of a model, as TensorRT-LLM's layers compute.
struct Ranks {
    spec: ModelSpec,
    layout: Layout,
    ranks: Vec<Weights>,
}

impl Ranks {
    fn of(spec: &ModelSpec, layout: Layout, weights: &Weights) -> Self {
        let rank = |rank| shard(spec, &layout, rank, weights, Dtype::F32).unwrap();
        let ranks = (0..layout.tensor_parallel).map(rank).collect();
        Self { spec: spec.clone(), layout, ranks }
    }

    /// Sums what the ranks compute, then adds the whole bias, once.
    fn all_reduce(&self, name: &str, x: impl Fn(&Weights) -> Matrix) -> Matrix {
        let bias = get(&self.ranks[0], &format!("{name}.bias"));
        let parts = self.ranks.iter().map(|rank| linear(rank, name, &x(rank), false));
        let sum = parts.reduce(|a, b| add(&a, &b)).unwrap();
        match bias {
            Some(bias) => add(&sum, &vec![bias[0].clone(); sum.len()]),
            None => sum,
        }
    }

    fn embed(&self, id: usize) -> Vec<f64> {
        let tables = self.ranks.iter().map(|rank| must(rank, "transformer.vocab_embedding.weight"));
        let tables: Vec<Matrix> = tables.collect();
        match self.layout.embedding {
            EmbeddingSplit::Replicated => tables[id % tables.len()][id].clone(),
            EmbeddingSplit::Vocabulary => {
                tables[id / tables[0].len()][id % tables[0].len()].clone()
            }
            EmbeddingSplit::Hidden => tables.iter().flat_map(|table| table[id].clone()).collect(),
        }
    }

    fn attention(&self, rank: &Weights, h: &Matrix) -> Matrix {
        let (layer, dim) = ("transformer.layers.0.attention", self.spec.head_dim);
        let qkv = linear(rank, &format!("{layer}.qkv"), h, true);
        let tp = self.layout.tensor_parallel;
        let q_size = self.spec.num_heads / tp * dim;
        let kv_size = self.spec.num_kv_heads.div_ceil(tp) * dim;
        let part = |from: usize, size: usize| -> Matrix {
            qkv.iter().map(|row| row[from..from + size].to_vec()).collect()
        };
        let norm = |name: &str| get(rank, &format!("{layer}.{name}.weight"));
        let q = head_norms(&part(0, q_size), norm("q_layernorm"));
        let k = head_norms(&part(q_size, kv_size), norm("k_layernorm"));
        attend(&q, &k, &part(q_size + kv_size, kv_size), dim)
    }

    /// `GatedMLP`: `silu(fc(x)) * gate(x)`. `FusedGatedMLP`: swiglu, whose second half goes through the silu.
    fn mlp(&self, rank: &Weights, h: &Matrix) -> Matrix {
        let project =
            |name: &str| linear(rank, &format!("transformer.layers.0.mlp.{name}"), h, true);
        if self.layout.fused_mlp {
            let swiglu = |row: Vec<f64>| {
                let (first, second) = row.split_at(row.len() / 2);
                first.iter().zip(second).map(|(a, &b)| a * silu(b)).collect()
            };
            return project("fused_fc").into_iter().map(swiglu).collect();
        }
        let times = |(fc, gate): (Vec<f64>, Vec<f64>)| {
            fc.into_iter().zip(gate).map(|(fc, gate)| silu(fc) * gate).collect()
        };
        project("fc").into_iter().zip(project("gate")).map(times).collect()
    }

    fn logits(&self) -> Matrix {
        let any = self.ranks.last().unwrap();
        let x: Matrix = TOKENS.iter().map(|&id| self.embed(id)).collect();
        let h = norms(&x, &must(any, "transformer.layers.0.input_layernorm.weight"));
        let mixed = |rank: &Weights| self.attention(rank, &h);
        let x = add(&x, &self.all_reduce("transformer.layers.0.attention.dense", mixed));
        let h = norms(&x, &must(any, "transformer.layers.0.post_layernorm.weight"));
        let inner = |rank: &Weights| self.mlp(rank, &h);
        let x = add(&x, &self.all_reduce("transformer.layers.0.mlp.proj", inner));
        let h = norms(&x, &must(any, "transformer.ln_f.weight"));
        let head = match self.layout.share_embedding {
            true => "transformer.vocab_embedding",
            false => "lm_head",
        };
        let mut logits = vec![Vec::new(); h.len()];
        for rank in &self.ranks {
            for (all, part) in logits.iter_mut().zip(linear(rank, head, &h, true)) {
                all.extend(part);
            }
        }
        let padding = self.layout.padded_vocabulary(&self.spec) - self.spec.vocab_size;
        for row in &mut logits {
            let dropped = row.split_off(self.spec.vocab_size);
            assert_eq!(dropped, vec![0.0; padding]);
        }
        logits
    }
}

fn largest_difference(a: &Matrix, b: &Matrix) -> f64 {
    let rows = a.iter().flatten().zip(b.iter().flatten());
    rows.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn the_ranks_together_compute_what_the_whole_model_does() {
    let splits = [EmbeddingSplit::Replicated, EmbeddingSplit::Vocabulary, EmbeddingSplit::Hidden];
    for spec in families() {
        let spec = ModelSpec { num_layers: 1, ..spec };
        let weights = weights(&spec);
        let expected = whole(&spec, &weights);
        // Two key and value heads: from four ranks on, neighbours share one.
        for ranks in [1, 2, 4, 8] {
            for embedding in splits {
                let apart = Layout { embedding, ..Layout::checkpoint(ranks) };
                for layout in [apart, apart.engine(&spec, false), apart.engine(&spec, true)] {
                    let found = Ranks::of(&spec, layout, &weights).logits();
                    let difference = largest_difference(&found, &expected);
                    assert!(difference < 1e-11, "{difference}: {:?} {layout:?}", spec.family);
                }
            }
        }
    }
}

#[test]
fn an_exchange_of_two_tensors_would_be_seen() {
    let spec = ModelSpec { num_layers: 1, num_kv_heads: 8, ..llama() };
    let straight = weights(&spec);
    let expected = whole(&spec, &straight);
    let exchanges = [("gate_proj", "up_proj"), ("q_proj", "k_proj"), ("k_proj", "v_proj")];
    for (one, other) in exchanges {
        let swapped = |name: &str| match name.contains(one) {
            true => name.replace(one, other),
            false => name.replace(other, one),
        };
        let tensors = straight.iter().map(|(name, tensor)| (swapped(name), tensor.clone()));
        let lease = straight.lease().clone();
        let exchanged = Weights::new(straight.version(), lease, tensors.collect());
        let found = Ranks::of(&spec, Layout::checkpoint(2), &exchanged).logits();
        assert!(largest_difference(&found, &expected) > 1e-3, "{one} for {other}");
    }
}
