//! Settings of the TensorRT-LLM backend.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, rule};

/// How new weights get into a TensorRT engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefitTier {
    /// In place where the library can, by rebuilding elsewhere.
    #[default]
    Auto,
    /// Into the live engine, through TensorRT's refitter.
    InPlace,
    /// Into a second plan that is serialised and takes the engine's place. Slow, and twice the memory.
    Rebuild,
}

/// The `[engine.tensorrt_llm]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TensorRtLlmConfig {
    /// The engine directory, as `rollforge engine build` writes it: `config.json` and `rankN.engine`.
    pub engine_dir: Option<PathBuf>,
    /// Generate with the contract double in place of TensorRT-LLM. For tests: slow, and no proof of anything on a GPU.
    pub double: bool,
    /// How new weights get in.
    pub refit: RefitTier,
    /// Whether requests share the KV blocks of equal prefixes, salted with the weight version.
    pub block_reuse: bool,
    /// Share of the device memory left at start that the KV cache takes, where `kv_cache_tokens` does not say. 0 is 0.9.
    pub kv_free_fraction: f32,
    /// CUDA device of each participating rank. Empty: rank modulo devices.
    pub device_ids: Vec<i32>,
    /// MPI ranks that serve this engine. Empty: all.
    pub participant_ids: Vec<i32>,
}

impl Default for TensorRtLlmConfig {
    fn default() -> Self {
        Self {
            engine_dir: None,
            double: false,
            refit: RefitTier::Auto,
            block_reuse: false,
            kv_free_fraction: 0.0,
            device_ids: Vec::new(),
            participant_ids: Vec::new(),
        }
    }
}

impl TensorRtLlmConfig {
    /// Checks every rule.
    ///
    /// # Errors
    /// Names the first field that breaks one.
    pub fn validate(&self) -> Result<(), Error> {
        let share = self.kv_free_fraction;
        rule((0.0..=1.0).contains(&share), "tensorrt_llm.kv_free_fraction", "from 0 to 1", share)?;
        rule(
            !self.double || cfg!(feature = "tensorrt-llm"),
            "tensorrt_llm.double",
            "false in a build without the feature `tensorrt-llm`, which brings the double",
            self.double,
        )?;
        let negative = [
            ("tensorrt_llm.device_ids", &self.device_ids),
            ("tensorrt_llm.participant_ids", &self.participant_ids),
        ];
        for (field, ids) in negative {
            let bad = ids.iter().find(|&&id| id < 0);
            rule(bad.is_none(), field, "at least 0 each", bad.copied().unwrap_or_default())?;
        }
        Ok(())
    }
}
