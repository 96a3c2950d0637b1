//! Directories written, read back, and spoiled in every way that has a message of its own.

use std::time::Duration;

use super::*;
use crate::rollout::{Dtype, Weights};

fn spec() -> ModelSpec {
    ModelSpec {
        family: Family::Llama,
        head: Head::LanguageModel,
        hidden_size: 12,
        intermediate_size: 20,
        num_layers: 2,
        num_heads: 3,
        num_kv_heads: 1,
        head_dim: 4,
        vocab_size: 37,
        max_positions: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: false,
        dtype: Dtype::F32,
    }
}

fn checksum(weights: &Weights) -> String {
    weights.checksum(&weights.lease().read(Duration::ZERO).unwrap())
}

fn written(spec: &ModelSpec, options: &WriteOptions) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let weights = random_weights(spec, Init { std: 0.5, seed: 3 });
    let path = dir.path().join("model");
    write_model_with(&path, spec, &weights, &Companions::default(), options).unwrap();
    (dir, checksum(&weights))
}

#[test]
fn what_is_written_is_read_back_bit_for_bit() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        for head in [Head::LanguageModel, Head::Score] {
            for shard_bytes in [1_000_000, 500] {
                let spec = ModelSpec { dtype, head, ..spec() };
                let options = WriteOptions { shard_bytes, replace: false };
                let (dir, sum) = written(&spec, &options);
                let checkpoint = Checkpoint::open(&dir.path().join("model")).unwrap();
                assert_eq!(*checkpoint.spec(), spec);
                assert_eq!(checksum(&checkpoint.weights(dtype).unwrap()), sum);
            }
        }
    }
}
