//! TensorRT-LLM's statistics of an iteration, as far as they are used here.

use serde::Deserialize;

/// What one iteration reported. Keys that are not named here are passed over, missing ones are zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Iteration {
    /// Its number.
    pub(super) iter: u64,
    /// Requests that are being answered.
    pub(super) num_active_requests: u64,
    /// Requests that wait.
    pub(super) num_queued_requests: u64,
    /// The KV cache.
    pub(super) kv_cache_stats: KvCache,
}

/// Blocks of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct KvCache {
    /// Blocks there are.
    pub(super) max_num_blocks: u64,
    /// Blocks in use.
    pub(super) used_num_blocks: u64,
}

impl Iteration {
    /// Reads the JSON.
    ///
    /// # Errors
    /// When it is none, or a number is no number.
    pub(super) fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Says whether nothing is being answered and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.num_active_requests == 0 && self.num_queued_requests == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_passed_over_and_missing_ones_are_zero() {
        let json = r#"{"iter": 7, "numActiveRequests": 2, "timestamp": "now",
            "kvCacheStats": {"maxNumBlocks": 9, "tokensPerBlock": 64}}"#;
        let stats = Iteration::parse(json).unwrap();
        assert_eq!((stats.iter, stats.num_active_requests, stats.is_idle()), (7, 2, false));
        assert_eq!(stats.kv_cache_stats, KvCache { max_num_blocks: 9, used_num_blocks: 0 });
        assert!(Iteration::parse(r#"{"iter": 8, "kvCacheStats": {}}"#).unwrap().is_idle());
        assert!(Iteration::parse("{").is_err());
    }
}
