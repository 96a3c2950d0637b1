//! Names, shapes and pieces against the hand-written list in `tests/golden/tensorrt_llm`.

use super::*;

const GOLDEN: &str = include_str!("../../../tests/golden/tensorrt_llm/names.txt");

/// Reads a stanza's first line: the model, its layout, and the rank.
fn case(line: &str) -> (ModelSpec, Layout, usize) {
    let words: Vec<&str> = line.split(' ').collect();
    let ["case", family, "tp", ranks, "rank", rank, options @ ..] = words.as_slice() else {
        panic!("{line}");
    };
    let has = |option: &str| options.contains(&option);
    let base = families().into_iter().find(|spec| spec.family.model_type() == *family).unwrap();
    let bias = has("bias");
    let spec = ModelSpec {
        hidden_size: 8,
        intermediate_size: 12,
        num_layers: 1,
        num_heads: 4,
        num_kv_heads: 2,
        head_dim: 2,
        vocab_size: 7,
        qkv_bias: bias || base.family == Family::Qwen2,
        o_bias: bias,
        mlp_bias: bias,
        tie_word_embeddings: has("tied"),
        ..base
    };
    let embedding = match (has("vocabulary"), has("hidden")) {
        (true, _) => EmbeddingSplit::Vocabulary,
        (_, true) => EmbeddingSplit::Hidden,
        _ => EmbeddingSplit::Replicated,
    };
    let layout = Layout {
        tensor_parallel: ranks.parse().unwrap(),
        fused_mlp: has("fused"),
        embedding,
        share_embedding: has("shared"),
    };
    (spec, layout, rank.parse().unwrap())
}

fn shown(mapped: &Mapped) -> String {
    let shape: Vec<String> = mapped.shape.iter().map(ToString::to_string).collect();
    let pieces: Vec<String> = mapped
        .pieces
        .iter()
        .map(|piece| match piece {
            Piece::Zeros { rows } => format!("zeros[{rows}]"),
            Piece::Of { tensor, rows, columns } => {
                let columns = match mapped.shape.len() {
                    1 => String::new(),
                    _ => format!(",{}:{}", columns.start, columns.end),
                };
                format!("{tensor}[{}:{}{columns}]", rows.start, rows.end)
            }
        })
        .collect();
    format!("{} {} = {}", mapped.name, shape.join("x"), pieces.join(" "))
        .replace("transformer.layers.0.", "T.")
        .replace("model.layers.0.", "L.")
}

#[test]
fn every_tensor_has_the_pieces_that_upstream_gives_it() {
    let stanzas: Vec<&str> = GOLDEN.trim().split("\n\n").collect();
    assert_eq!(stanzas.len(), 6);
    for stanza in stanzas {
        let (head, expected) = stanza.split_once('\n').unwrap();
        let (spec, layout, rank) = case(head);
        spec.check().unwrap();
        let list = tensors(&spec, &layout, rank).unwrap();
        let found: Vec<String> = list.iter().map(shown).collect();
        assert_eq!(found, expected.lines().collect::<Vec<_>>(), "{head}");
    }
}
