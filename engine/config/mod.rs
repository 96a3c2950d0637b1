//! How an engine is set up. The same rollouts come out whatever these say, but for `dtype`.

mod canary;
mod tensorrt_llm;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use canary::CanaryConfig;
pub use tensorrt_llm::{RefitTier, TensorRtLlmConfig};

use super::Error;
use crate::{model::ModelSpec, rollout::Dtype};

/// Which backend generates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendKind {
    /// The embedded engine, on the CPU.
    #[default]
    #[serde(rename = "native")]
    Native,
    /// TensorRT-LLM, on an NVIDIA GPU.
    #[serde(rename = "tensorrt-llm")]
    TensorRtLlm,
}

/// The number format the engine computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineDtype {
    /// That of the weights; f16 weights are computed in f32.
    #[default]
    Auto,
    /// 32-bit weights.
    F32,
    /// bf16 weights, f32 sums.
    Bf16,
}

impl EngineDtype {
    /// Returns the format of the engine's weights, given that of the checkpoint.
    pub fn resolve(self, checkpoint: Dtype) -> Dtype {
        match (self, checkpoint) {
            (Self::Auto, Dtype::Bf16) | (Self::Bf16, _) => Dtype::Bf16,
            (Self::Auto | Self::F32, _) => Dtype::F32,
        }
    }
}

/// What a refit does with requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefitInFlight {
    /// Lets them end under the old weights, holding back those that have not begun.
    #[default]
    Drain,
    /// Commits at the next token boundary; what they have so far is computed again under the new weights, and their
    /// rollouts carry a version span for each.
    Recompute,
    /// Commits at the next token boundary; what they have so far stays as the old weights computed it. Faster than
    /// `recompute`, and what is sampled then is of neither version's policy, though its log-probs are exact.
    Keep,
}

impl RefitInFlight {
    /// Returns its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Recompute => "recompute",
            Self::Keep => "keep",
        }
    }
}

/// Settings of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Which backend generates.
    pub backend: BackendKind,
    /// The number format to compute with: `auto`, `f32` or `bf16`.
    pub dtype: EngineDtype,
    /// Number of threads. 0 takes every core.
    pub threads: usize,
    /// Positions the KV cache holds. 0 has room for `max_batch` sequences of full length, within 2 GiB.
    pub kv_cache_tokens: usize,
    /// Positions in one KV block.
    pub block_size: usize,
    /// Most sequences computed together.
    pub max_batch: usize,
    /// Most tokens in one engine step: what decoding leaves over goes to prompts, in chunks.
    pub max_batch_tokens: usize,
    /// Most calls of `generate`, `stream` and `score` in the engine at once; further ones wait for their turn.
    pub max_calls: usize,
    /// Longest time a caller waits while the engine makes no step, and a refit waits for requests in flight.
    pub deadline_seconds: f64,
    /// What a refit does with requests in flight: `drain`, `recompute` or `keep`. TensorRT-LLM always drains.
    pub refit_in_flight: RefitInFlight,
    /// How a refit is verified.
    pub canary: CanaryConfig,
    /// Settings of the TensorRT-LLM backend; the embedded engine ignores them.
    pub tensorrt_llm: TensorRtLlmConfig,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            backend: BackendKind::Native,
            dtype: EngineDtype::Auto,
            threads: 0,
            kv_cache_tokens: 0,
            block_size: 16,
            max_batch: 64,
            max_batch_tokens: 512,
            max_calls: 4096,
            deadline_seconds: 600.0,
            refit_in_flight: RefitInFlight::Drain,
            canary: CanaryConfig::default(),
            tensorrt_llm: TensorRtLlmConfig::default(),
        }
    }
}

/// Bytes the KV cache takes at most when its size is not given.
const DEFAULT_KV_BYTES: usize = 2 << 30;

impl EngineConfig {
    /// Checks every rule, also those between fields.
    ///
    /// # Errors
    /// Names the first field that breaks one.
    pub fn validate(&self) -> Result<(), Error> {
        let at_least_one = [
            ("block_size", self.block_size),
            ("max_batch", self.max_batch),
            ("max_batch_tokens", self.max_batch_tokens),
            ("max_calls", self.max_calls),
        ];
        for (field, value) in at_least_one {
            rule(value >= 1, field, "at least 1", value)?;
        }
        rule(self.threads <= 1024, "threads", "at most 1024", self.threads)?;
        rule(self.block_size <= 1024, "block_size", "at most 1024", self.block_size)?;
        // Semaphores and batches of this size cannot be told from a slip of the pen.
        rule(self.max_calls <= 1 << 24, "max_calls", "at most 16777216", self.max_calls)?;
        rule(self.max_batch <= 65_536, "max_batch", "at most 65536", self.max_batch)?;
        rule(
            self.max_batch_tokens >= self.max_batch,
            "max_batch_tokens",
            format!("at least max_batch ({}), so that every sequence can decode", self.max_batch),
            self.max_batch_tokens,
        )?;
        let seconds = self.deadline_seconds;
        rule(seconds > 0.0 && seconds <= 1e9, "deadline_seconds", "above 0, at most 1e9", seconds)?;
        self.canary.validate()?;
        self.tensorrt_llm.validate()?;
        match self.backend {
            BackendKind::Native => Ok(()),
            BackendKind::TensorRtLlm => self.validate_tensorrt_llm(),
        }
    }

    /// Checks what the TensorRT-LLM backend asks of the other fields.
    fn validate_tensorrt_llm(&self) -> Result<(), Error> {
        rule(
            self.tensorrt_llm.engine_dir.is_some(),
            "tensorrt_llm.engine_dir",
            "the directory of an engine where backend is \"tensorrt-llm\" (`rollforge engine build` makes one)",
            "none",
        )?;
        // The Executor cannot be made to compute again what it has in its KV cache, nor be refitted in the middle of it.
        rule(
            self.refit_in_flight == RefitInFlight::Drain,
            "refit_in_flight",
            "\"drain\" where backend is \"tensorrt-llm\"",
            format!("{:?}", self.refit_in_flight.name()),
        )
    }

    /// Returns the longest wait without a sign of life.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs_f64(self.deadline_seconds)
    }

    /// Returns the number of threads, all cores where none is named.
    pub fn resolve_threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// Returns how many KV blocks a model of this shape gets, each position taking `dtype` numbers.
    pub(crate) fn kv_blocks(&self, spec: &ModelSpec, dtype: Dtype) -> usize {
        let tokens = if self.kv_cache_tokens > 0 {
            self.kv_cache_tokens
        } else {
            let position = 2 * spec.num_layers * spec.kv_size() * dtype.size();
            let affordable = (DEFAULT_KV_BYTES / position.max(1)).max(spec.max_positions);
            spec.max_positions.saturating_mul(self.max_batch).min(affordable)
        };
        tokens.div_ceil(self.block_size)
    }
}

/// Returns the error that says which field broke which rule, unless it was kept.
pub(super) fn rule(
    kept: bool,
    field: &'static str,
    rule: impl Into<String>,
    got: impl ToString,
) -> Result<(), Error> {
    if kept {
        Ok(())
    } else {
        Err(Error::Request { field, rule: rule.into(), got: got.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        EngineConfig::default().validate().unwrap();
    }

    #[test]
    fn a_batch_beyond_the_token_budget_is_refused_by_name() {
        let config = EngineConfig { max_batch: 9, max_batch_tokens: 8, ..EngineConfig::default() };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "max_batch_tokens must be at least max_batch (9), so that every sequence can decode, got 8"
        );
        let config = EngineConfig { deadline_seconds: f64::NAN, ..EngineConfig::default() };
        assert!(config.validate().unwrap_err().to_string().starts_with("deadline_seconds must be"));
    }

    #[test]
    fn the_tensorrt_llm_backend_needs_an_engine_and_drains() {
        let mut config =
            EngineConfig { backend: BackendKind::TensorRtLlm, ..EngineConfig::default() };
        let said = |config: &EngineConfig| config.validate().unwrap_err().to_string();
        assert!(said(&config).starts_with("tensorrt_llm.engine_dir must be the directory"));
        config.tensorrt_llm.engine_dir = Some("engine".into());
        config.validate().unwrap();
        config.refit_in_flight = RefitInFlight::Recompute;
        assert_eq!(
            said(&config),
            "refit_in_flight must be \"drain\" where backend is \"tensorrt-llm\", got \"recompute\""
        );
        config.backend = BackendKind::Native;
        config.validate().unwrap();
    }

    #[test]
    fn the_double_is_there_only_with_its_feature() {
        let tensorrt_llm = TensorRtLlmConfig { double: true, ..TensorRtLlmConfig::default() };
        let validated = EngineConfig { tensorrt_llm, ..EngineConfig::default() }.validate();
        assert_eq!(validated.is_ok(), cfg!(feature = "tensorrt-llm"), "{validated:?}");
    }

    #[test]
    fn a_negative_device_is_named_with_its_section() {
        let tensorrt_llm =
            TensorRtLlmConfig { device_ids: vec![0, -3], ..TensorRtLlmConfig::default() };
        let error = EngineConfig { tensorrt_llm, ..EngineConfig::default() }.validate();
        assert_eq!(
            error.unwrap_err().to_string(),
            "tensorrt_llm.device_ids must be at least 0 each, got -3"
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = serde_json::from_str::<EngineConfig>(r#"{"thread": 2}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `thread`"), "{error}");
        let config: EngineConfig =
            serde_json::from_str(r#"{"backend": "tensorrt-llm", "dtype": "bf16"}"#).unwrap();
        assert_eq!((config.backend, config.dtype), (BackendKind::TensorRtLlm, EngineDtype::Bf16));
    }
}
