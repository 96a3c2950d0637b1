//! Checkpoints written, read back, and spoiled.

use std::{fs, path::PathBuf};

use super::*;

struct Home {
    dir: tempfile::TempDir,
    spec: ModelSpec,
    options: CheckpointOptions,
}

impl Home {
    fn of(spec: &ModelSpec, layout: Layout) -> Self {
        let options = CheckpointOptions { layout, dtype: spec.dtype, replace: false };
        let home = Self { dir: tempfile::tempdir().unwrap(), spec: spec.clone(), options };
        home.write(&weights(spec)).unwrap();
        home
    }

    fn write(&self, weights: &Weights) -> Result<(), Error> {
        write_checkpoint(&self.path(), &self.spec, weights, &self.options)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("checkpoint")
    }

    /// What is said when the checkpoint is read.
    fn complaint(&self) -> String {
        self.message(&read_checkpoint(&self.path()).unwrap_err())
    }

    fn message(&self, error: &Error) -> String {
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message.replace(&self.path().display().to_string(), "DIR")
    }

    /// Every file under the directory's parent: nothing temporary must be left there.
    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Changes a number of a tensor in a rank's file.
    fn spoil(&self, rank: usize, (tensor, index): (&str, usize), number: f32) {
        let path = self.path().join(format!("rank{rank}.safetensors"));
        let mut bytes = fs::read(&path).unwrap();
        let start = {
            let length = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let header: serde_json::Value = serde_json::from_slice(&bytes[8..length]).unwrap();
            length + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize + index * 4
        };
        bytes[start..start + 4].copy_from_slice(&number.to_le_bytes());
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn what_is_written_is_read_again() {
    for spec in families() {
        for ranks in [1, 2, 4, 8] {
            let home = Home::of(&spec, Layout::checkpoint(ranks));
            let (read, back) = read_checkpoint(&home.path()).unwrap();
            assert_eq!(read, spec);
            assert_eq!(checksum(&back), checksum(&weights(&spec)));
            assert_eq!(home.beside(), ["checkpoint"]);
        }
    }
}

#[test]
fn numbers_are_converted_on_the_way_out() {
    let mut home = Home::of(&llama(), Layout::checkpoint(2));
    home.options.dtype = Dtype::Bf16;
    home.options.replace = true;
    home.write(&weights(&llama())).unwrap();
    let (read, back) = read_checkpoint(&home.path()).unwrap();
    assert_eq!(read.dtype, Dtype::Bf16);
    let bf16 = shard(&llama(), &Layout::checkpoint(1), 0, &weights(&llama()), Dtype::Bf16).unwrap();
    let again = shard(&llama(), &Layout::checkpoint(1), 0, &back, Dtype::Bf16).unwrap();
    assert_eq!(checksum(&again), checksum(&bf16));
}

#[test]
fn a_checkpoint_is_complete_or_not_there() {
    let mut home = Home::of(&llama(), Layout::checkpoint(2));
    let before = checksum(&read_checkpoint(&home.path()).unwrap().1);
    let other = weights(&ModelSpec { tie_word_embeddings: true, ..llama() });
    assert_eq!(
        home.message(&home.write(&weights(&llama())).unwrap_err()),
        "DIR exists already; choose another directory or remove it"
    );
    home.options.replace = true;
    assert_eq!(
        home.message(&home.write(&other).unwrap_err()),
        "DIR: the weights do not cover the model: missing lm_head.weight"
    );
    let huge = with_number(&weights(&llama()), "model.norm.weight", 1e30);
    home.options.dtype = Dtype::F16;
    assert_eq!(
        home.message(&home.write(&huge).unwrap_err()),
        "tensor model.norm.weight has a number that is not finite in f16, at index 0 of transformer.ln_f.weight"
    );
    assert_eq!(home.beside(), ["checkpoint"]);
    assert_eq!(checksum(&read_checkpoint(&home.path()).unwrap().1), before);
}

#[test]
fn fused_or_shared_layouts_are_no_checkpoints() {
    let tied = ModelSpec { tie_word_embeddings: true, ..llama() };
    let mut home = Home::of(&tied, Layout::checkpoint(1));
    home.options.layout = Layout { fused_mlp: true, ..Layout::checkpoint(1) };
    assert_eq!(
        home.message(&home.write(&weights(&tied)).unwrap_err()),
        "fused_mlp must be false in a checkpoint: the builder fuses, got true"
    );
    home.options.layout = Layout { share_embedding: true, ..Layout::checkpoint(1) };
    assert_eq!(
        home.message(&home.write(&weights(&tied)).unwrap_err()),
        "share_embedding must be false in a checkpoint, got true"
    );
}

#[test]
fn ranks_that_do_not_agree_are_refused_by_tensor() {
    let home = Home::of(&llama(), Layout::checkpoint(2));
    home.spoil(0, ("transformer.layers.1.input_layernorm.weight", 0), 77.0);
    assert_eq!(
        home.complaint(),
        "tensor transformer.layers.1.input_layernorm.weight must be the same wherever \
         model.layers.1.input_layernorm.weight lies, got other numbers on rank 0"
    );
    let tied = ModelSpec { tie_word_embeddings: true, ..llama() };
    let home = Home::of(&tied, Layout::checkpoint(2));
    home.spoil(1, ("lm_head.weight", 0), 77.0);
    assert!(home.complaint().contains("must be the same wherever model.embed_tokens.weight lies"));
}

#[test]
fn key_heads_that_neighbours_share_must_agree() {
    // Two heads over four ranks: each rank has two query heads, then a key head that its neighbour has, too.
    let qkv = "transformer.layers.0.attention.qkv.weight";
    let query_rows = 2 * llama().head_dim;
    let home = Home::of(&llama(), Layout::checkpoint(4));
    home.spoil(2, (qkv, query_rows * llama().hidden_size - 1), 77.0);
    read_checkpoint(&home.path()).expect("the last query number is on no other rank");
    home.spoil(2, (qkv, query_rows * llama().hidden_size), 77.0);
    assert_eq!(
        home.complaint(),
        "tensor transformer.layers.0.attention.qkv.weight must be the same wherever \
         model.layers.0.self_attn.k_proj.weight lies, got other numbers on rank 2"
    );
}

#[test]
fn damaged_checkpoints_are_refused_by_file() {
    let home = Home::of(&llama(), Layout::checkpoint(2));
    home.spoil(1, ("lm_head.weight", 0), f32::NAN);
    assert_eq!(
        home.complaint(),
        "DIR/rank1.safetensors: tensor lm_head.weight has a NaN or infinite number at index 0"
    );
    let rank1 = home.path().join("rank1.safetensors");
    let bytes = fs::read(&rank1).unwrap();
    fs::write(&rank1, &bytes[..bytes.len() - 4]).unwrap();
    assert!(home.complaint().starts_with("DIR/rank1.safetensors: is truncated: "));
    fs::remove_file(&rank1).unwrap();
    assert!(home.complaint().starts_with("cannot open DIR/rank1.safetensors: "));
    fs::remove_file(home.path().join("config.json")).unwrap();
    assert_eq!(home.complaint(), "DIR/config.json: is missing");
}

#[test]
fn a_head_that_was_left_out_is_asked_for_unless_tied() {
    for (tied, expected) in [(true, None), (false, Some("rank 0: the weights do not cover"))] {
        let spec = ModelSpec { tie_word_embeddings: true, ..llama() };
        let home = Home::of(&spec, Layout::checkpoint(1));
        let path = home.path().join("rank0.safetensors");
        let (bytes, head) = (fs::read(&path).unwrap(), spec.vocab_size * spec.hidden_size * 4);
        let length = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Value = serde_json::from_slice(&bytes[8..length]).unwrap();
        header.as_object_mut().unwrap().remove("lm_head.weight");
        let header = header.to_string();
        // The head is the last tensor of the file.
        let body = &bytes[length..bytes.len() - head];
        let parts = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), body];
        fs::write(&path, parts.concat()).unwrap();
        let config = home.path().join("config.json");
        let said = fs::read_to_string(&config).unwrap();
        let flag = format!("\"tie_word_embeddings\": {tied}");
        fs::write(&config, said.replace("\"tie_word_embeddings\": true", &flag)).unwrap();
        match expected {
            None => assert_eq!(
                checksum(&read_checkpoint(&home.path()).unwrap().1),
                checksum(&weights(&spec))
            ),
            Some(start) => assert!(home.complaint().starts_with(start), "{}", home.complaint()),
        }
    }
}
