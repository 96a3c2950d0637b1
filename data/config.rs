//! Which files, which columns, how long a sample may be.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The `[data]` section of a run's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Files to train on: JSON Lines (`.jsonl`, `.json`, `.ndjson`) or Parquet (`.parquet`); one path or a list.
    #[serde(deserialize_with = "one_or_many")]
    pub train: Vec<PathBuf>,
    /// Files to measure on. Default none.
    #[serde(default, deserialize_with = "one_or_many")]
    pub eval: Vec<PathBuf>,
    /// Longest sample in tokens: prompt and completion together, or the prompt alone for PPO. Never more than
    /// the model's context holds. Default 1024.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
    /// What becomes of a longer one; either way it is counted. Default `drop`.
    #[serde(default)]
    pub over_long: OverLong,
    /// End each completion that no chat template ends with the EOS token. Default true.
    #[serde(default = "default_true")]
    pub append_eos: bool,
    /// For supervised fine-tuning: train on completions, or the assistant's turns, only, not on prompts. Default true.
    #[serde(default = "default_true")]
    pub completion_only: bool,
    /// Use a new order each epoch, rather than that of the files. Default true.
    #[serde(default = "default_true")]
    pub shuffle: bool,
    /// Read at most so many rows to train on. Default: all.
    #[serde(default)]
    pub train_rows: Option<usize>,
    /// Read at most so many rows to measure on. Default: all.
    #[serde(default)]
    pub eval_rows: Option<usize>,
    /// Which column holds what, where the usual names do not say.
    #[serde(default)]
    pub columns: Columns,
}

/// What becomes of a sample that is longer than it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverLong {
    /// It is left out.
    #[default]
    Drop,
    /// It is cut: a prompt loses its beginning, so that it ends where the completion starts; everything else its end.
    Truncate,
}

/// Column names that differ from the usual ones. The names are TRL's; NeMo's are tried after them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// A whole text. Usually `text`.
    pub text: Option<String>,
    /// A whole conversation: a list of `{role, content}`. Usually `messages`.
    pub messages: Option<String>,
    /// Usually `prompt`, or `input`.
    pub prompt: Option<String>,
    /// Usually `completion`, or `output`.
    pub completion: Option<String>,
    /// Usually `chosen`, or `chosen_response`.
    pub chosen: Option<String>,
    /// Usually `rejected`, or `rejected_response`.
    pub rejected: Option<String>,
    /// Whether a completion is a good one. Usually `label`, or `preference`.
    pub label: Option<String>,
    /// Several responses to a prompt. Usually `responses`.
    pub responses: Option<String>,
    /// By how much the chosen one is better, a number. Usually `margin`.
    pub margin: Option<String>,
    /// How good the chosen one is, a number. Usually `chosen_reward`.
    pub chosen_reward: Option<String>,
    /// How good the rejected one is, a number. Usually `rejected_reward`.
    pub rejected_reward: Option<String>,
    /// Columns with ratings, which `regression.attributes` names. Empty stands for the usual ones.
    #[serde(skip)]
    pub attributes: Vec<String>,
}

impl DataConfig {
    /// Names training files and leaves everything else at its default.
    pub fn new(train: Vec<PathBuf>) -> Self {
        Self {
            train,
            eval: Vec::new(),
            max_tokens: default_max_tokens(),
            over_long: OverLong::default(),
            append_eos: true,
            completion_only: true,
            shuffle: true,
            train_rows: None,
            eval_rows: None,
            columns: Columns::default(),
        }
    }
}

fn default_max_tokens() -> usize {
    1024
}

fn default_true() -> bool {
    true
}

/// Takes a single path for a list of one.
pub(crate) fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<PathBuf>, D::Error> {
    struct Paths;

    impl<'de> de::Visitor<'de> for Paths {
        type Value = Vec<PathBuf>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a path or a list of paths")
        }

        fn visit_str<E: de::Error>(self, path: &str) -> Result<Self::Value, E> {
            Ok(vec![path.into()])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut paths = Vec::new();
            while let Some(path) = list.next_element()? {
                paths.push(path);
            }
            Ok(paths)
        }
    }

    deserializer.deserialize_any(Paths)
}
