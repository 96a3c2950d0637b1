//! A reward model elsewhere.

use serde::{Deserialize, Serialize};

use super::kind::{deadline, validate_deadline};
use crate::config::Violation;

/// A server of rewards: `rollforge serve-rm`, or another that keeps its protocol (docs/rewards.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpReward {
    /// Where it answers: `http://HOST:PORT/score`.
    pub url: String,
    /// The longest time for the answer of one request. Default 60.
    #[serde(default = "deadline")]
    pub deadline_seconds: f64,
    /// How often a request is made again that was not answered in time, could not be made, or was answered with 408, 429 or
    /// 5xx; after a quarter of a second, then twice as long each time, up to 8 s. Default 4.
    #[serde(default = "retries")]
    pub retries: u32,
    /// The most completions of a request. Default 64.
    #[serde(default = "batch")]
    pub batch: usize,
    /// The environment variable that holds the token which the server asks for. Default: none is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

fn retries() -> u32 {
    4
}

fn batch() -> usize {
    64
}

impl HttpReward {
    pub(super) fn validate(&self) -> Result<(), Violation> {
        let host = self.url.strip_prefix("http://").unwrap_or_default();
        let rule = "http://HOST:PORT/PATH; for https, a proxy beside the run";
        let named = !host.is_empty()
            && !host.starts_with(['/', ':'])
            && !host.contains(char::is_whitespace);
        Violation::unless(named, "url", rule, format!("{:?}", self.url))?;
        Violation::unless(self.batch >= 1, "batch", "at least 1", self.batch)?;
        validate_deadline(self.deadline_seconds)
    }
}
