//! A tiny engine directory of the contract double, written by hand: one layer, 16 tokens.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// What config.json holds; the double wants an object.
pub const CONFIG: &str = "{}";

const SIZES: &str = "vocab_size 16\nvocab_padded 16\nhidden_size 8\nintermediate_size 12\nnum_layers 1\nnum_heads 2\n\
                     num_kv_heads 1\nhead_dim 4\nrms_norm_eps 1e-06\nqk_norm 0\nfused_mlp 0\nmax_batch_size 4\n\
                     max_num_tokens 64\nmax_seq_len 64\ntokens_per_block 4\nkv_blocks 64\nsliding_window 0\n";

/// Name and number of elements, all in 32 bits.
pub const TENSORS: [(&str, usize); 12] = [
    ("rotary_inv_freq", 2),
    ("transformer.vocab_embedding.weight", 128),
    ("transformer.layers.0.input_layernorm.weight", 8),
    ("transformer.layers.0.attention.qkv.weight", 128),
    ("transformer.layers.0.attention.dense.weight", 64),
    ("transformer.layers.0.post_layernorm.weight", 8),
    ("transformer.layers.0.mlp.fc.weight", 96),
    ("transformer.layers.0.mlp.gate.weight", 96),
    ("transformer.layers.0.mlp.proj.weight", 96),
    ("transformer.layers.0.attention.qkv.bias", 16),
    ("transformer.ln_f.weight", 8),
    ("lm_head.weight", 128),
];

/// A folder with config.json and rank0.engine.
pub struct EngineDir(TempDir);

impl EngineDir {
    /// Writes an engine whose faults are `<point> <nth> <what>`.
    pub fn with(faults: &[&str]) -> Self {
        let folder = Self(TempDir::new().unwrap());
        fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        fs::write(folder.plan(), plan(faults)).unwrap();
        folder
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn plan(&self) -> PathBuf {
        self.path().join("rank0.engine")
    }
}

/// Returns the bytes of a plan.
pub fn plan(faults: &[&str]) -> Vec<u8> {
    let mut header = format!("rollforge-double-plan 1\n{SIZES}");
    for fault in faults {
        writeln!(header, "fault {fault}").unwrap();
    }
    let mut data = Vec::new();
    for (name, count) in TENSORS {
        writeln!(header, "tensor {name} f32 {count} {}", data.len()).unwrap();
        data.extend(values(name, count, 0).iter().flat_map(|value| value.to_le_bytes()));
    }
    header.push_str("data\n");
    let mut bytes = header.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes.extend(data);
    bytes
}

/// Returns numbers around zero, others for each name and version.
pub fn values(name: &str, count: usize, version: u32) -> Vec<f32> {
    let mut state = name.bytes().fold(version.wrapping_mul(77) + 1, |state, byte| {
        state.wrapping_mul(31).wrapping_add(u32::from(byte))
    });
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}
