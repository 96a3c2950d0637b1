//! Cut and put together again, every family, bit for bit.

use proptest::prelude::*;

use super::*;

const EMBEDDINGS: [EmbeddingSplit; 3] =
    [EmbeddingSplit::Replicated, EmbeddingSplit::Vocabulary, EmbeddingSplit::Hidden];

fn case() -> impl Strategy<Value = (ModelSpec, Layout)> {
    let sizes = (0..4usize, 1..=3usize, 0..=3u32, 0..=3u32, 1..=3usize, 1..=3usize);
    let rest = (1..60usize, any::<bool>(), any::<bool>(), any::<bool>(), 0..3usize, 0..3usize);
    (0..=3u32, sizes, rest).prop_map(|(log_ranks, sizes, rest)| {
        let (family, layers, more_heads, kv, head, ffn) = sizes;
        let (vocab_size, tied, bias, fused_mlp, embedding, dtype) = rest;
        let ranks = 1 << log_ranks;
        let num_heads = ranks << (more_heads % 2);
        let base = families()[family].clone();
        let bias = bias && base.family == Family::Llama;
        let spec = ModelSpec {
            num_layers: layers,
            num_heads,
            num_kv_heads: num_heads >> kv.min(num_heads.ilog2()),
            head_dim: 2 * head,
            hidden_size: num_heads * head,
            intermediate_size: ranks * ffn,
            vocab_size,
            tie_word_embeddings: tied,
            qkv_bias: bias || base.family == Family::Qwen2,
            o_bias: bias,
            mlp_bias: bias,
            dtype: [Dtype::F32, Dtype::F16, Dtype::Bf16][dtype],
            ..base
        };
        let embedding = EMBEDDINGS[embedding];
        let layout = Layout { embedding, ..Layout::checkpoint(ranks) };
        (spec.clone(), if fused_mlp { layout.engine(&spec, true) } else { layout })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_cut_is_put_together_again((spec, layout) in case()) {
        spec.check().unwrap();
        let whole = weights(&spec);
        let ranks: Vec<Weights> = (0..layout.tensor_parallel)
            .map(|rank| shard(&spec, &layout, rank, &whole, spec.dtype).unwrap())
            .collect();
        prop_assert_eq!(checksum(&scatter(&spec, &layout, &ranks).unwrap()), checksum(&whole));
    }
}
