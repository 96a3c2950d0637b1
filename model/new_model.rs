//! A model from nothing: a shape, random weights, and a tokenizer learned from text.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Companions, Error, Family, GenerationConfig, Head, Init, ModelSpec, RopeScaling, Tokenizer,
    bpe, error::Result, files, random_weights, write_model,
};
use crate::rollout::Dtype;

/// What a new model is to be. The default is a Llama of about four million weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NewModelSpec {
    /// The family.
    pub family: Family,
    /// Number of token ids, special ones included. Less when the text has not enough to learn from.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_layers: usize,
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads. Default: as many as query heads.
    pub num_kv_heads: Option<usize>,
    /// Size of one head. Default: `hidden_size / num_heads`.
    pub head_dim: Option<usize>,
    /// Longest sequence.
    pub max_positions: usize,
    /// Epsilon of every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are stretched.
    pub rope_scaling: Option<RopeScaling>,
    /// Sliding window of a Mistral or Qwen.
    pub sliding_window: Option<usize>,
    /// Biases in the attention of a Llama or Qwen3; Qwen2 always has its own.
    pub attention_bias: bool,
    /// Biases in the feed-forward layer of a Llama.
    pub mlp_bias: bool,
    /// The head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// The number format of the weights.
    pub dtype: Dtype,
    /// Standard deviation of every matrix; norms are 1, biases 0.
    pub init_std: f32,
    /// Key of the random numbers.
    pub seed: u64,
    /// A directory with a tokenizer to take over, instead of learning one.
    pub tokenizer: Option<PathBuf>,
    /// Starts a text.
    pub bos_token: Option<String>,
    /// Whether encoding a text puts the BOS token first.
    pub add_bos: bool,
    /// Ends a text.
    pub eos_token: String,
    /// Fills up batches.
    pub pad_token: String,
    /// Further special tokens, such as those of a chat template.
    pub extra_special_tokens: Vec<String>,
    /// A Jinja chat template.
    pub chat_template: Option<String>,
}

impl Default for NewModelSpec {
    fn default() -> Self {
        Self {
            family: Family::Llama,
            vocab_size: 4096,
            hidden_size: 256,
            intermediate_size: 704,
            num_layers: 4,
            num_heads: 4,
            num_kv_heads: None,
            head_dim: None,
            max_positions: 512,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            sliding_window: None,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: true,
            dtype: Dtype::F32,
            init_std: 0.02,
            seed: 0,
            tokenizer: None,
            bos_token: Some("<|startoftext|>".into()),
            add_bos: true,
            eos_token: "<|endoftext|>".into(),
            pad_token: "<|pad|>".into(),
            extra_special_tokens: vec![],
            chat_template: None,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Created {
    /// The model's shape, with the vocabulary it got.
    pub spec: ModelSpec,
    /// Number of weights.
    pub parameters: usize,
    /// The vocabulary that was asked for.
    pub vocab_asked: usize,
}

impl Created {
    /// Returns a sentence when the vocabulary is not what was asked for.
    pub fn note(&self) -> Option<String> {
        let (got, asked) = (self.spec.vocab_size, self.vocab_asked);
        (got < asked).then(|| {
            format!(
                "the text has too few repeated pieces for {asked} tokens; the vocabulary has {got}"
            )
        })
    }
}

/// Makes a model and writes its directory: random weights and a tokenizer learned from `texts`, or taken over from
/// [`NewModelSpec::tokenizer`]. The same spec and texts give the same files.
///
/// # Errors
/// When the spec breaks a rule, there is no text, or the directory exists or cannot be written. Then nothing is left
/// behind.
pub fn new_model(
    spec: &NewModelSpec,
    texts: impl Iterator<Item = String> + Send,
    out: &Path,
) -> Result<Created> {
    // Said first: a mistake should not cost the time that learning takes.
    check_numbers(spec)?;
    spec.shape(spec.vocab_size).check()?;
    if out.exists() {
        return Err(Error::Exists { path: out.to_owned() });
    }
    let (tokenizer, mut companions) = match &spec.tokenizer {
        Some(dir) => taken_over(dir)?,
        None => learned(spec, texts)?,
    };
    let vocab_size = match spec.tokenizer {
        Some(_) => spec.vocab_size,
        None => tokenizer.vocab_size(),
    };
    let shape = spec.shape(vocab_size);
    tokenizer.check(&shape)?;
    companions.generation = GenerationConfig {
        eos_token_ids: tokenizer.eos().into_iter().collect(),
        bos_token_id: tokenizer.bos(),
        pad_token_id: tokenizer.pad(),
        ..GenerationConfig::default()
    };
    let weights = random_weights(&shape, Init { std: spec.init_std, seed: spec.seed });
    write_model(out, &shape, &weights, &companions)?;
    Ok(Created { parameters: shape.parameters(), spec: shape, vocab_asked: spec.vocab_size })
}

fn taken_over(dir: &Path) -> Result<(Tokenizer, Companions)> {
    let files = Companions::files_of(dir)?;
    Ok((Tokenizer::open(dir)?, Companions { files, ..Companions::default() }))
}

fn learned(
    spec: &NewModelSpec,
    texts: impl Iterator<Item = String> + Send,
) -> Result<(Tokenizer, Companions)> {
    let mut texts = texts.filter(|text| !text.is_empty()).peekable();
    if texts.peek().is_none() {
        return Err(Error::Tokenizer("there is no text to learn from".into()));
    }
    let tokenizer = bpe::train(spec, texts)?;
    let mut companions = Companions::default();
    let config = files::pretty(&bpe::tokenizer_config(spec));
    companions.files.insert("tokenizer.json".into(), tokenizer.to_json()?.into_bytes());
    companions.files.insert("tokenizer_config.json".into(), config.into_bytes());
    Ok((tokenizer, companions))
}

fn check_numbers(spec: &NewModelSpec) -> Result<()> {
    let sizes = [
        ("vocab_size", spec.vocab_size, 1 << 26),
        ("hidden_size", spec.hidden_size, 1 << 20),
        ("intermediate_size", spec.intermediate_size, 1 << 26),
        ("num_layers", spec.num_layers, 1 << 12),
        ("num_heads", spec.num_heads, 1 << 20),
        ("max_positions", spec.max_positions, 1 << 30),
    ];
    let broken = |field: &str, rule: &str, got: String| {
        Err(Error::Spec { field: field.into(), rule: rule.into(), got })
    };
    for (field, size, most) in sizes {
        if !(1..=most).contains(&size) {
            return broken(field, &format!("from 1 to {most}"), size.to_string());
        }
    }
    if !(spec.init_std.is_finite() && spec.init_std >= 0.0) {
        return broken("init_std", "a finite number of 0 or more", spec.init_std.to_string());
    }
    for (field, number) in [("rms_norm_eps", spec.rms_norm_eps), ("rope_theta", spec.rope_theta)] {
        if !(number.is_finite() && number > 0.0) {
            return broken(field, "a finite number above 0", number.to_string());
        }
    }
    Ok(())
}

impl NewModelSpec {
    /// Returns the shape of the model with a vocabulary of `vocab_size`.
    pub fn shape(&self, vocab_size: usize) -> ModelSpec {
        let qwen2 = self.family == Family::Qwen2;
        ModelSpec {
            family: self.family,
            head: Head::LanguageModel,
            labels: Vec::new(),
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_layers: self.num_layers,
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads.unwrap_or(self.num_heads),
            head_dim: self.head_dim.unwrap_or(self.hidden_size / self.num_heads.max(1)),
            vocab_size,
            max_positions: self.max_positions,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta: self.rope_theta,
            rope_scaling: self.rope_scaling.clone(),
            sliding_window: self.sliding_window,
            qkv_bias: qwen2 || self.attention_bias,
            o_bias: !qwen2 && self.attention_bias,
            mlp_bias: self.mlp_bias,
            qk_norm: self.family == Family::Qwen3,
            tie_word_embeddings: self.tie_word_embeddings,
            dtype: self.dtype,
        }
    }
}
