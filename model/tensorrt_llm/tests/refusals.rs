//! Models that cannot be cut so, and weights that are not those of the model.

use std::time::Duration;

use super::*;
use crate::ffi::memory::{Lease, Memory};

fn complaint(spec: &ModelSpec, layout: &Layout, rank: usize) -> String {
    tensors(spec, layout, rank).unwrap_err().to_string()
}

#[test]
fn what_does_not_divide_is_named() {
    let ranks = Layout::checkpoint;
    for (layout, expected) in [
        (ranks(3), "tensor_parallel must be a divisor of num_attention_heads (8), got 3"),
        (ranks(0), "tensor_parallel must be at least 1, got 0"),
    ] {
        assert_eq!(complaint(&llama(), &layout, 0), expected);
    }
    let odd = ModelSpec { intermediate_size: 41, ..llama() };
    let expected = "tensor_parallel must be a divisor of intermediate_size (41), got 2";
    assert_eq!(complaint(&odd, &ranks(2), 0), expected);
    let hidden = Layout { embedding: EmbeddingSplit::Hidden, ..ranks(8) };
    let narrow = ModelSpec { hidden_size: 20, family: Family::Mistral, ..families()[1].clone() };
    let expected = "tensor_parallel must be a divisor of hidden_size (20), got 8";
    assert_eq!(complaint(&narrow, &hidden, 0), expected);
    let six = ModelSpec { num_heads: 12, num_kv_heads: 6, ..llama() };
    let expected =
        "tensor_parallel must be a divisor or a multiple of num_key_value_heads (6), got 4";
    assert_eq!(complaint(&six, &ranks(4), 0), expected);
    let expected = "rank must be below tensor_parallel (2), got 2";
    assert_eq!(complaint(&llama(), &ranks(2), 2), expected);
}

#[test]
fn models_that_tensorrt_llm_does_not_have_are_refused() {
    let alone = Layout::checkpoint(1);
    let qwen3 = ModelSpec { qkv_bias: true, o_bias: true, ..families()[3].clone() };
    qwen3.check().unwrap();
    let expected = "attention_bias must be false for qwen3 in TensorRT-LLM, got true";
    assert_eq!(complaint(&qwen3, &alone, 0), expected);
    let expected = "head must be that of a language model, got Score";
    assert_eq!(complaint(&llama().with_head(Head::Score), &alone, 0), expected);
    let shared = Layout { share_embedding: true, ..alone };
    let expected = "share_embedding must be false for an untied model, which has a lm_head.weight of its own, got true";
    assert_eq!(complaint(&llama(), &shared, 0), expected);
    let tied = ModelSpec { tie_word_embeddings: true, ..llama() };
    let expected = "share_embedding must be false unless the embedding is cut along the vocabulary, as the head is, got true";
    assert_eq!(complaint(&tied, &Layout { tensor_parallel: 2, ..shared }, 0), expected);
}

#[test]
fn other_models_weights_are_refused_by_tensor() {
    let (spec, layout) = (llama(), Layout::checkpoint(2));
    let other = weights(&ModelSpec { intermediate_size: 44, ..llama() });
    let message = shard(&spec, &layout, 1, &other, Dtype::F32).unwrap_err().to_string();
    assert!(message.starts_with("rank 1: the weights do not cover the model: "), "{message}");
    assert!(message.contains("mlp.down_proj.weight must be [24, 40], got [24, 44]"), "{message}");
    let mapped = &tensors(&spec, &layout, 1).unwrap()[2];
    let reading = other.lease().read(Duration::ZERO).unwrap();
    let small = weights(&ModelSpec { num_kv_heads: 1, ..llama() });
    let small_reading = small.lease().read(Duration::ZERO).unwrap();
    let mut out = vec![0; mapped.elements() * 4];
    mapped.gather(&other, &reading, Dtype::F32, &mut out).unwrap();
    let message = mapped.gather(&small, &small_reading, Dtype::F32, &mut out).unwrap_err();
    assert_eq!(
        message.to_string(),
        "tensor model.layers.0.self_attn.k_proj.weight must have 12 rows and 24 columns for \
         transformer.layers.0.attention.qkv.weight, got the shape [6, 24]"
    );
}

#[test]
fn ranks_must_be_all_there_and_whole() {
    let (spec, layout) = (llama(), Layout::checkpoint(2));
    let rank = |rank| shard(&spec, &layout, rank, &weights(&spec), Dtype::F32).unwrap();
    let message = |ranks: &[Weights]| scatter(&spec, &layout, ranks).unwrap_err().to_string();
    assert_eq!(message(&[rank(0)]), "ranks must be 2, as tensor_parallel, got 1");
    let fused = Layout { fused_mlp: true, ..layout };
    let other = shard(&spec, &fused, 1, &weights(&spec), Dtype::F32).unwrap();
    assert!(message(&[rank(0), other]).starts_with("rank 1: the weights do not cover the model: "));
    let half = shard(&spec, &layout, 1, &weights(&spec), Dtype::Bf16).unwrap();
    let message = message(&[rank(0), half]);
    assert!(message.ends_with(" must be f32, as elsewhere, got bf16 on rank 1"), "{message}");
}

#[test]
fn weights_on_a_device_are_for_use_in_place() {
    let spec = llama();
    let lease = Lease::default();
    let tensors_on_device = spec.tensors().into_iter().map(|tensor| {
        let len = tensor.shape.iter().product::<usize>() * 4;
        let memory = Memory::unreachable(len, 3, &lease);
        (
            tensor.name,
            crate::rollout::WeightTensor { dtype: Dtype::F32, shape: tensor.shape, memory },
        )
    });
    let device = Weights::new(Default::default(), lease.clone(), tensors_on_device.collect());
    let list = tensors(&spec, &Layout::checkpoint(1), 0).unwrap();
    assert!(list[0].in_place(&device, Dtype::F32).is_some());
    let message = shard(&spec, &Layout::checkpoint(1), 0, &device, Dtype::F32).unwrap_err();
    let message = message.to_string();
    assert!(message.contains(" must be on the host for transformer.layers."), "{message}");
}
