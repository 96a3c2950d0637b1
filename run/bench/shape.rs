//! Models of random weights: how fast one is does not depend on what its weights are.

use crate::{
    engine::EngineModel,
    model::{Family, Init, ModelSpec, random_weights},
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
    /// Makes a model of this shape.
    pub fn model(self, dtype: Dtype) -> EngineModel {
        let spec = ModelSpec { dtype, ..self.spec() };
        let weights = random_weights(&spec, Init { std: 0.02, seed: 0 });
        EngineModel { spec, weights, eos: Vec::new(), tokenizer: None }
    }

    fn spec(self) -> ModelSpec {
        let (layers, hidden_size, intermediate_size, heads, vocab_size) = match self {
            Self::Llama5M => (4, 256, 688, (4, 4), 4_096),
            Self::Llama60M => (8, 512, 1_408, (8, 4), 32_000),
            Self::Llama135M => (30, 576, 1_536, (9, 3), 49_152),
            Self::Qwen2Half => (24, 896, 4_864, (14, 2), 151_936),
        };
        let qwen2 = self == Self::Qwen2Half;
        ModelSpec {
            family: if qwen2 { Family::Qwen2 } else { Family::Llama },
            hidden_size,
            intermediate_size,
            num_layers: layers,
            num_heads: heads.0,
            num_kv_heads: heads.1,
            head_dim: 64,
            vocab_size,
            max_positions: 4_096,
            qkv_bias: qwen2,
            tie_word_embeddings: self != Self::Llama60M,
            ..EngineModel::tiny(0).spec
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
            let weights = shape.spec().parameters() / 1_000_000;
            assert!(millions.contains(&weights), "{shape:?}: {weights} million");
        }
    }
}
