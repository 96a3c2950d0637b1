//! The slow twin that judges the transformer: one whole sequence at a time, no cache, no batch, plain loops in f64.

use std::collections::HashMap;

use crate::{model::ModelSpec, rollout::Weights};

use super::testing::numbers;

/// A transformer as the textbook has it.
pub(crate) struct Reference<'a> {
    spec: &'a ModelSpec,
    tensors: HashMap<String, Vec<f64>>,
}

type Rows = Vec<Vec<f64>>;

impl<'a> Reference<'a> {
    pub(crate) fn new(spec: &'a ModelSpec, weights: &Weights) -> Self {
        let wide = |name: &str| numbers(weights, name).into_iter().map(f64::from).collect();
        let tensors = weights.iter().map(|(name, _)| (name.to_owned(), wide(name))).collect();
        Self { spec, tensors }
    }

    /// Returns the logits after each token.
    pub(crate) fn logits(&self, tokens: &[u32]) -> Rows {
        let spec = self.spec;
        let embedding = &self.tensors["model.embed_tokens.weight"];
        let embed = |&token: &u32| {
            embedding[token as usize * spec.hidden_size..][..spec.hidden_size].to_vec()
        };
        let mut hidden: Rows = tokens.iter().map(embed).collect();
        for layer in 0..spec.num_layers {
            let name = format!("model.layers.{layer}");
            let normed = self.norms(&format!("{name}.input_layernorm"), &hidden);
            add(&mut hidden, &self.attention(&format!("{name}.self_attn"), &normed));
            let normed = self.norms(&format!("{name}.post_attention_layernorm"), &hidden);
            add(&mut hidden, &self.feed_forward(&format!("{name}.mlp"), &normed));
        }
        let normed = self.norms("model.norm", &hidden);
        let head = if spec.tie_word_embeddings { "model.embed_tokens" } else { "lm_head" };
        self.linear(head, &normed)
    }

    fn linear(&self, name: &str, x: &Rows) -> Rows {
        let weight = &self.tensors[&format!("{name}.weight")];
        let bias = self.tensors.get(&format!("{name}.bias"));
        let row = |x: &Vec<f64>| {
            let outputs = weight.chunks_exact(x.len());
            let dot = |w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
            outputs.enumerate().map(|(n, w)| dot(w) + bias.map_or(0.0, |bias| bias[n])).collect()
        };
        x.iter().map(row).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let weight = &self.tensors[&format!("{name}.weight")];
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let rms = (mean + self.spec.rms_norm_eps).sqrt();
        x.iter().zip(weight).map(|(x, weight)| x / rms * weight).collect()
    }

    fn norms(&self, name: &str, x: &Rows) -> Rows {
        x.iter().map(|x| self.norm(name, x)).collect()
    }

    fn feed_forward(&self, name: &str, x: &Rows) -> Rows {
        let mut gate = self.linear(&format!("{name}.gate_proj"), x);
        let up = self.linear(&format!("{name}.up_proj"), x);
        for (gate, up) in gate.iter_mut().flatten().zip(up.iter().flatten()) {
            *gate = *gate / (1.0 + (-*gate).exp()) * up;
        }
        self.linear(&format!("{name}.down_proj"), &gate)
    }

    fn attention(&self, name: &str, x: &Rows) -> Rows {
        let head_dim = self.spec.head_dim;
        let [q, k, v] =
            ["q", "k", "v"].map(|which| self.linear(&format!("{name}.{which}_proj"), x));
        let q = self.rotated(&format!("{name}.q_norm"), &q);
        let k = self.rotated(&format!("{name}.k_norm"), &k);
        let group = self.spec.num_heads / self.spec.num_kv_heads;
        let mut out = vec![vec![0.0; self.spec.q_size()]; x.len()];
        for (t, out) in out.iter_mut().enumerate() {
            let window = self.spec.sliding_window.unwrap_or(usize::MAX);
            let seen = (t + 1).saturating_sub(window)..t + 1;
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let of = |rows: &Rows, t: usize, head: usize| {
                    rows[t][head * head_dim..][..head_dim].to_vec()
                };
                let query = of(&q, t, head);
                let score = |s| {
                    let key = of(&k, s, head / group);
                    query.iter().zip(key).map(|(q, k)| q * k).sum::<f64>()
                        / (head_dim as f64).sqrt()
                };
                let weights: Vec<f64> = seen.clone().map(|s| f64::exp(score(s))).collect();
                let total: f64 = weights.iter().sum();
                for (s, weight) in seen.clone().zip(weights) {
                    for (out, value) in out.iter_mut().zip(of(&v, s, head / group)) {
                        *out += weight / total * value;
                    }
                }
            }
        }
        self.linear(&format!("{name}.o_proj"), &out)
    }

    /// Normalises each head where the family does, then rotates it to its row's position.
    fn rotated(&self, norm: &str, rows: &Rows) -> Rows {
        let (head_dim, half) = (self.spec.head_dim, self.spec.head_dim / 2);
        let frequencies = self.spec.rope_frequencies();
        let rotate = |(position, row): (usize, &Vec<f64>)| {
            row.chunks_exact(head_dim)
                .flat_map(|head| {
                    let head =
                        if self.spec.qk_norm { self.norm(norm, head) } else { head.to_vec() };
                    let turn = |i: usize| f64::from(position as f32 * frequencies[i % half]);
                    let paired = |i: usize| if i < half { -head[i + half] } else { head[i - half] };
                    let one = |i: usize| head[i] * turn(i).cos() + paired(i) * turn(i).sin();
                    (0..head_dim).map(one).collect::<Vec<_>>()
                })
                .collect()
        };
        rows.iter().enumerate().map(rotate).collect()
    }
}

fn add(to: &mut Rows, more: &Rows) {
    for (to, more) in to.iter_mut().flatten().zip(more.iter().flatten()) {
        *to += more;
    }
}
