//! Models of random weights: how fast one is does not depend on what its weights are.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    engine::EngineModel,
    model::{Family, Init, NewModelSpec, new_model, random_weights},
    rollout::Dtype,
};

/// The shape of a made-up model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A Llama of 5 million weights: 4 layers of 256, 4,096 tokens.
    Llama5M,
    /// A Llama of 60 million weights: 8 layers of 512, 32,000 tokens.
    Llama60M,
    /// A Llama of 135 million weights in the shape of SmolLM: 30 layers of 576, 49,152 tokens.
    Llama135M,
    /// A Qwen2 in the shape of Qwen2-0.5B: 24 layers of 896, 151,936 tokens.
    Qwen2Half,
}

impl Shape {
    /// Returns what people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama5M => "5M",
            Self::Llama60M => "60M",
            Self::Llama135M => "135M",
            Self::Qwen2Half => "qwen2-0.5B",
        }
    }

    /// Makes a model of this shape.
    pub fn model(self, dtype: Dtype) -> EngineModel {
        let spec = self.spec(dtype);
        let spec = spec.shape(spec.vocab_size);
        let weights = random_weights(&spec, Init { std: 0.02, seed: 0 });
        EngineModel { spec, weights, eos: Vec::new(), tokenizer: None }
    }

    /// Writes a model of this shape, with a tokenizer to which each digit is a token.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(self, dtype: Dtype, folder: &Path) -> Result<PathBuf> {
        let (digits, model) = (folder.join("digits"), folder.join(self.name()));
        let tokenizer = NewModelSpec {
            vocab_size: 280,
            hidden_size: 8,
            intermediate_size: 8,
            num_layers: 1,
            num_heads: 1,
            add_bos: false,
            ..NewModelSpec::default()
        };
        new_model(&tokenizer, std::iter::once("0123456789".to_owned()), &digits)?;
        let spec = NewModelSpec { tokenizer: Some(digits), ..self.spec(dtype) };
        new_model(&spec, std::iter::empty(), &model)?;
        Ok(model)
    }

    fn spec(self, dtype: Dtype) -> NewModelSpec {
        let (num_layers, hidden_size, intermediate_size, heads, vocab_size) = match self {
            Self::Llama5M => (4, 256, 688, (4, 4), 4_096),
            Self::Llama60M => (8, 512, 1_408, (8, 4), 32_000),
            Self::Llama135M => (30, 576, 1_536, (9, 3), 49_152),
            Self::Qwen2Half => (24, 896, 4_864, (14, 2), 151_936),
        };
        NewModelSpec {
            family: if self == Self::Qwen2Half { Family::Qwen2 } else { Family::Llama },
            vocab_size,
            hidden_size,
            intermediate_size,
            num_layers,
            num_heads: heads.0,
            num_kv_heads: Some(heads.1),
            max_positions: 4_096,
            tie_word_embeddings: self != Self::Llama60M,
            dtype,
            ..NewModelSpec::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_the_weights_that_their_names_say() {
        for (shape, millions) in [
            (Shape::Llama5M, 4..6),
            (Shape::Llama60M, 55..61),
            (Shape::Llama135M, 134..136),
            (Shape::Qwen2Half, 493..495),
        ] {
            let spec = shape.spec(Dtype::F32);
            let weights = spec.shape(spec.vocab_size).parameters() / 1_000_000;
            assert!(millions.contains(&weights), "{shape:?}: {weights} million");
        }
    }
}
