//! From a model to a backend: the one place that chooses.

use std::{fmt, path::Path};

use super::{
    Backend, BackendKind, EngineConfig, Error,
    native::{
        Native, Vocabulary,
        cpu::{Cpu, CpuOptions},
    },
};
use crate::{
    model::{Family, Head, Init, Model, ModelSpec, SpecialTokens, Tokenizer, random_weights},
    rollout::{Dtype, Weights},
};

/// What an engine generates with.
#[derive(Clone)]
pub struct EngineModel {
    /// The shape.
    pub spec: ModelSpec,
    /// Every tensor of it.
    pub weights: Weights,
    /// The model's own end-of-sequence ids.
    pub eos: Vec<u32>,
    /// Without one the engine knows tokens only: no text, no stop strings.
    pub tokenizer: Option<Tokenizer>,
}

impl fmt::Debug for EngineModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spec, weights, .. } = self;
        write!(f, "EngineModel({:?}, {} bytes)", spec.family, weights.bytes())
    }
}

impl EngineModel {
    /// Opens a Hugging Face model directory, converting the weights to the configured number format.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn open(config: &EngineConfig, dir: &Path) -> Result<Self, Error> {
        let failed = |error: crate::model::Error| Error::Model(error.to_string());
        let model = Model::open(dir).map_err(failed)?;
        let mut spec = model.spec().clone();
        spec.dtype = config.dtype.resolve(spec.dtype);
        let weights = model.checkpoint.weights(spec.dtype).map_err(failed)?;
        let Model { tokenizer, generation, .. } = model;
        Ok(Self { spec, weights, eos: generation.eos_token_ids, tokenizer })
    }

    /// Makes a two-layer Llama of random weights whose tokens are the 256 bytes and an end-of-sequence token: enough to
    /// try the API with, and nothing to download.
    pub fn tiny(seed: u64) -> Self {
        let spec = ModelSpec {
            family: Family::Llama,
            head: Head::LanguageModel,
            labels: Vec::new(),
            hidden_size: 32,
            intermediate_size: 64,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 8,
            vocab_size: 257,
            max_positions: 256,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: None,
            sliding_window: None,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            tie_word_embeddings: false,
            dtype: Dtype::F32,
        };
        // Wide enough for the tokens to matter to one another.
        let weights = random_weights(&spec, Init { std: 0.3, seed });
        Self { spec, weights, eos: vec![256], tokenizer: Some(byte_tokenizer()) }
    }
}

/// Makes a tokenizer whose ids 0 to 255 are the bytes, and 256 the end of a text.
fn byte_tokenizer() -> Tokenizer {
    use tokenizers::{AddedToken, models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel};
    // GPT-2's printable stand-ins: bytes that print stand for themselves, the others follow from U+0100.
    let prints = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = (0x100u32..).filter_map(char::from_u32);
    let stand_in = |byte: u8| {
        let other = if prints(byte) { None } else { others.next() };
        (other.unwrap_or(byte.into()).to_string(), u32::from(byte))
    };
    let vocab = (0..=u8::MAX).map(stand_in).collect();
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::new(vocab, Vec::new()));
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, false, false)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    let end = "<|endoftext|>";
    tokenizer
        .add_special_tokens([AddedToken::from(end, true)])
        .expect("a new token's text is its own");
    let special = SpecialTokens { eos: Some(end.into()), ..SpecialTokens::default() };
    Tokenizer::new(tokenizer, special).expect("the byte vocabulary is whole")
}

/// Opens the backend that the configuration names.
///
/// # Errors
/// When this build lacks it, the configuration breaks a rule, or the model cannot be used.
pub fn open(config: &EngineConfig, model: EngineModel) -> Result<Box<dyn Backend>, Error> {
    config.validate()?;
    match config.backend {
        BackendKind::Native => {
            let EngineModel { spec, weights, eos, tokenizer } = model;
            let options = CpuOptions {
                threads: config.resolve_threads(),
                dtype: Some(config.dtype.resolve(spec.dtype)),
                ..CpuOptions::default()
            };
            let forward = Cpu::new(spec, &weights, options)?;
            Ok(Box::new(Native::new(forward, config, Vocabulary { eos, tokenizer })?))
        }
        #[cfg(feature = "tensorrt-llm")]
        BackendKind::TensorRtLlm => {
            Ok(Box::new(super::tensorrt_llm::TensorRtLlm::open(config, model)?))
        }
        #[cfg(not(feature = "tensorrt-llm"))]
        BackendKind::TensorRtLlm => {
            Err(Error::Unavailable { backend: "tensorrt-llm", feature: "tensorrt-llm" })
        }
    }
}
