//! What a transformer looks like: everything engine and trainer need to know to compute it.

use serde::{Deserialize, Serialize};

use crate::rollout::{Dtype, TensorSpec};

/// A model family, by the `model_type` of `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama 2 and 3.
    Llama,
    /// Mistral 7B and its kin: Llama with a sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm on each head's q and k, head size of its own.
    Qwen3,
}

/// How rotary position frequencies are stretched beyond the length a model was first trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Every frequency divided by `factor` (Chen et al., 2023).
    Linear {
        /// How many times longer the context becomes.
        factor: f64,
    },
    /// Low frequencies divided by `factor`, high ones kept, the band between blended (Llama 3.1).
    Llama3 {
        /// How many times longer the context becomes.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are scaled in full.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// The context of the first training.
        original_max_position_embeddings: usize,
    },
}

/// What stands on top of the transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// Logits over the vocabulary: `lm_head.weight`, or the embedding again where tied.
    LanguageModel,
    /// One number per token and label: `score.weight` of shape `[labels, hidden]`, as in a sequence classifier.
    Score,
}

impl Head {
    /// What the tensor of a score head is called.
    pub const SCORE: &'static str = "score.weight";
    /// What transformers calls the only label of a head where nobody has named it.
    pub const UNNAMED: &'static str = "LABEL_0";
}

/// The shape of a transformer. Sizes are in elements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// The family.
    pub family: Family,
    /// What stands on top.
    pub head: Head,
    /// What the numbers of a score head are called, one name each, no two alike. Empty for a language model, and where
    /// there is one number without a name.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Size of one head; `num_heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Longest sequence, prompt and completion together.
    pub max_positions: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched, if at all.
    pub rope_scaling: Option<RopeScaling>,
    /// Each token sees itself and the `sliding_window - 1` before it; `None` sees all.
    pub sliding_window: Option<usize>,
    /// Biases on q, k and v.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub o_bias: bool,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// RMSNorm on each head's q and k, before the rotation.
    pub qk_norm: bool,
    /// The head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The number format the checkpoint's weights are in.
    pub dtype: Dtype,
}

impl ModelSpec {
    /// Returns the width of all query heads together.
    pub fn q_size(&self) -> usize {
        self.num_heads * self.head_dim
    }

    /// Returns the width of all key heads together, which is that of all value heads.
    pub fn kv_size(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// Returns the same transformer under another head.
    #[must_use]
    pub fn with_head(&self, head: Head) -> Self {
        Self { head, ..self.clone() }
    }

    /// Returns the same transformer under a score head with a number for each of these names.
    #[must_use]
    pub fn with_labels(&self, labels: &[String]) -> Self {
        Self { head: Head::Score, labels: labels.to_vec(), ..self.clone() }
    }

    /// Returns how many numbers a score head gives.
    pub fn num_labels(&self) -> usize {
        self.labels.len().max(1)
    }

    /// Returns the names of a score head's numbers; one without a name is transformers' `LABEL_0`.
    pub fn label_names(&self) -> Vec<String> {
        match self.labels.is_empty() {
            true => vec![Head::UNNAMED.into()],
            false => self.labels.clone(),
        }
    }

    /// Lists every tensor of a checkpoint of this model, by its Hugging Face name.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut list = Tensors(Vec::new());
        list.add("model.embed_tokens.weight", &[self.vocab_size, self.hidden_size]);
        for layer in 0..self.num_layers {
            self.layer_tensors(&format!("model.layers.{layer}"), &mut list);
        }
        list.add("model.norm.weight", &[self.hidden_size]);
        match self.head {
            Head::LanguageModel if self.tie_word_embeddings => {}
            Head::LanguageModel => list.add("lm_head.weight", &[self.vocab_size, self.hidden_size]),
            Head::Score => list.add(Head::SCORE, &[self.num_labels(), self.hidden_size]),
        }
        list.0
    }

    fn layer_tensors(&self, layer: &str, list: &mut Tensors) {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        list.add(format!("{layer}.input_layernorm.weight"), &[hidden]);
        list.linear(format!("{layer}.self_attn.q_proj"), self.q_size(), hidden, self.qkv_bias);
        list.linear(format!("{layer}.self_attn.k_proj"), self.kv_size(), hidden, self.qkv_bias);
        list.linear(format!("{layer}.self_attn.v_proj"), self.kv_size(), hidden, self.qkv_bias);
        list.linear(format!("{layer}.self_attn.o_proj"), hidden, self.q_size(), self.o_bias);
        if self.qk_norm {
            list.add(format!("{layer}.self_attn.q_norm.weight"), &[self.head_dim]);
            list.add(format!("{layer}.self_attn.k_norm.weight"), &[self.head_dim]);
        }
        list.add(format!("{layer}.post_attention_layernorm.weight"), &[hidden]);
        list.linear(format!("{layer}.mlp.gate_proj"), ffn, hidden, self.mlp_bias);
        list.linear(format!("{layer}.mlp.up_proj"), ffn, hidden, self.mlp_bias);
        list.linear(format!("{layer}.mlp.down_proj"), hidden, ffn, self.mlp_bias);
    }

    /// Returns the number of weights.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// Returns the rotary frequencies, one per pair of a head's dimensions (radians per position), after scaling.
    ///
    /// `theta_i = rope_theta^(-2i / head_dim)` (Su et al., 2021), then as [`RopeScaling`] says.
    pub fn rope_frequencies(&self) -> Vec<f32> {
        let half = self.head_dim / 2;
        // transformers computes these in f32; so that positions near the context's end agree, so do we.
        (0..half)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / self.head_dim as f32;
                self.scaled_frequency(1.0 / (self.rope_theta as f32).powf(exponent))
            })
            .collect()
    }

    fn scaled_frequency(&self, frequency: f32) -> f32 {
        match self.rope_scaling {
            None => frequency,
            Some(RopeScaling::Linear { factor }) => frequency / factor as f32,
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            }) => {
                let (factor, low, high) =
                    (factor as f32, low_freq_factor as f32, high_freq_factor as f32);
                let original = original_max_position_embeddings as f32;
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / factor
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

struct Tensors(Vec<TensorSpec>);

impl Tensors {
    fn add(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.0.push(TensorSpec { name: name.into(), shape: shape.to_vec() });
    }

    fn linear(&mut self, name: String, outputs: usize, inputs: usize, bias: bool) {
        self.add(format!("{name}.weight"), &[outputs, inputs]);
        if bias {
            self.add(format!("{name}.bias"), &[outputs]);
        }
    }
}
