//! The files of a model directory.

use std::{path::Path, sync::OnceLock, time::Duration};

use rollforge::{
    engine::EngineModel,
    model::{
        Checkpoint, Init, Model, ModelSpec, Tokenizer, random_weights, read_tensors, write_tensors,
    },
    rollout::Dtype,
};

use super::{folder_with, put, refused, two_texts};

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
"num_attention_heads": 1, "vocab_size": 4, "max_position_embeddings": 8}"#;

/// A `config.json` beside weights that fit one model only.
pub fn config_json(data: &[u8]) {
    let folder = folder_with("config.json", data);
    put(folder.path(), "model.safetensors", shard());
    put(folder.path(), "generation_config.json", data);
    if let Err(error) = Model::open(folder.path()) {
        refused(error);
    }
}

/// A safetensors file; or, where it begins with a brace, an index of several.
pub fn safetensors(data: &[u8]) {
    let folder = folder_with("config.json", CONFIG.as_bytes());
    if data.first() == Some(&b'{') {
        put(folder.path(), "model.safetensors.index.json", data);
        put(folder.path(), "a", shard());
    } else {
        put(folder.path(), "model.safetensors", data);
        any_tensors(&folder.path().join("model.safetensors"));
    }
    match Checkpoint::open(folder.path()) {
        Err(error) => refused(error),
        Ok(checkpoint) => {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                checkpoint.weights(dtype).map_or_else(refused, drop);
            }
        }
    }
}

fn any_tensors(path: &Path) {
    match read_tensors(path) {
        Err(error) => refused(error),
        Ok(tensors) => {
            let reading = tensors.lease().read(Duration::ZERO).expect("nobody writes");
            for (_, tensor) in tensors.iter() {
                let numbers: usize = tensor.shape.iter().product();
                assert_eq!(tensor.memory.bytes(&reading).len(), numbers * tensor.dtype.size());
            }
        }
    }
}

/// The weights of the model that [`CONFIG`] describes.
fn shard() -> &'static [u8] {
    static SHARD: OnceLock<Vec<u8>> = OnceLock::new();
    SHARD.get_or_init(|| {
        let tiny = EngineModel::tiny(0).spec;
        let (hidden_size, head_dim, vocab_size) = (4, 4, 4);
        let spec = ModelSpec {
            hidden_size,
            head_dim,
            vocab_size,
            intermediate_size: 4,
            num_layers: 1,
            num_heads: 1,
            num_kv_heads: 1,
            ..tiny
        };
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("weights");
        let weights = random_weights(&spec, Init { std: 0.1, seed: 0 });
        write_tensors(&path, &weights).expect("a file can be written");
        std::fs::read(path).expect("it was just written")
    })
}

/// A `tokenizer.json`; after a zero byte, a text.
pub fn tokenizer(data: &[u8]) {
    let Some((json, text)) = two_texts(data) else { return };
    let folder = folder_with("tokenizer.json", json.as_bytes());
    match Tokenizer::open(folder.path()) {
        Err(error) => refused(error),
        Ok(tokenizer) => there_and_back(&tokenizer, text.unwrap_or("Hello, <s> w\u{f6}rld 12!\n")),
    }
}

fn there_and_back(tokenizer: &Tokenizer, text: &str) {
    let encoded = match tokenizer.encode_with_spans(text, true) {
        Err(error) => return refused(error),
        Ok(encoded) => encoded,
    };
    assert_eq!(encoded.ids.len(), encoded.spans.len());
    tokenizer.decode(&encoded.ids, true).map_or_else(refused, drop);
    let mut stream = tokenizer.stream(false);
    for id in encoded.ids {
        stream.push(id).map_or_else(refused, drop);
    }
}
