//! What a reward model over HTTP is asked, and what it answers: JSON, `POST /score`.

use serde::{Deserialize, Serialize};

use crate::trainer::reward::Reward;

/// A request's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::run) struct Question {
    /// Which tokenizer the token ids are of: [`fingerprint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::run) tokenizer: Option<String>,
    /// What is to be judged.
    pub(in crate::run) completions: Vec<Asked>,
}

/// One completion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::run) struct Asked {
    /// The prompt's text, without special tokens.
    pub(in crate::run) prompt: String,
    /// The completion's, likewise.
    pub(in crate::run) completion: String,
    /// The prompt's token ids, special ones included.
    #[serde(default)]
    pub(in crate::run) prompt_token_ids: Vec<u32>,
    /// The completion's, the end token included.
    #[serde(default)]
    pub(in crate::run) completion_token_ids: Vec<u32>,
}

/// An answer's body.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::run) struct Scores {
    /// A number for each completion, in order, or one for each of its tokens.
    pub(in crate::run) scores: Vec<Reward>,
}

/// The body of an answer that is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::run) struct Refusal {
    /// Why.
    pub(in crate::run) error: String,
}

/// Returns what a tokenizer is known by: the BLAKE3 hash of its `tokenizer.json` as it was read.
pub(in crate::run) fn fingerprint(tokenizer_json: &str) -> String {
    blake3::hash(tokenizer_json.as_bytes()).to_hex().to_string()
}
