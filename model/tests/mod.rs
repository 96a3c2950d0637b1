//! Directories written, read back, and spoiled in every way that has a message of its own.

mod bad_weights;
mod chat;
mod config;
mod new_model;
mod text;
mod writing;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::*;
use crate::rollout::{Dtype, Weights};

/// The smallest Llama there is a point in.
fn tiny() -> ModelSpec {
    ModelSpec {
        family: Family::Llama,
        head: Head::LanguageModel,
        labels: Vec::new(),
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

fn weights_of(spec: &ModelSpec) -> Weights {
    random_weights(spec, Init { std: 0.5, seed: 3 })
}

/// A model directory that goes away with the value.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn of(spec: &ModelSpec) -> Self {
        Self::with(spec, &WriteOptions::default())
    }

    fn with(spec: &ModelSpec, options: &WriteOptions) -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        let companions = Companions::default();
        write_model_with(&home.path(), spec, &weights_of(spec), &companions, options).unwrap();
        home
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("model")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap();
        change(&mut value);
        fs::write(self.file(name), value.to_string()).unwrap();
    }

    /// What is said when the directory is opened and its weights read.
    fn complaint(&self) -> String {
        let opened = Model::open(&self.path()).and_then(|m| m.checkpoint.weights(Dtype::F32));
        self.message(&opened.unwrap_err())
    }

    fn message(&self, error: &Error) -> String {
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message.replace(&self.path().display().to_string(), "DIR")
    }
}

fn golden_models() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models");
    let mut models: Vec<_> = fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    models.sort();
    models
}
