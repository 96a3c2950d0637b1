//! Which examples came before.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use super::super::Example;

/// Of BLAKE3, the first half: two of a billion examples have the same with a probability below 1e-20.
type Hash = [u8; 16];

/// What the examples of a file are, and their prompts.
pub(super) struct Seen {
    file: PathBuf,
    examples: HashSet<Hash>,
    prompts: HashSet<Hash>,
    duplicates: usize,
    duplicate_prompts: usize,
}

/// What two files have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// A file.
    pub file: PathBuf,
    /// One before it.
    pub earlier: PathBuf,
    /// How many different examples are in both.
    pub examples: usize,
    /// How many different prompts are in both.
    pub prompts: usize,
}

impl Seen {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            file: file.into(),
            examples: HashSet::new(),
            prompts: HashSet::new(),
            duplicates: 0,
            duplicate_prompts: 0,
        }
    }

    pub(super) fn add(&mut self, example: &Example) {
        self.duplicates += usize::from(!self.examples.insert(hash(&example.identity())));
        if let Some(prompt) = example.prompt() {
            self.duplicate_prompts += usize::from(!self.prompts.insert(hash(&prompt)));
        }
    }

    pub(super) fn duplicates(&self) -> usize {
        self.duplicates
    }

    pub(super) fn duplicate_prompts(&self) -> usize {
        self.duplicate_prompts
    }

    /// Returns what an earlier file has, too; `None` where it has nothing of it.
    pub(super) fn overlap(&self, earlier: &Self) -> Option<Overlap> {
        let examples = self.examples.intersection(&earlier.examples).count();
        let prompts = self.prompts.intersection(&earlier.prompts).count();
        (examples + prompts > 0).then(|| Overlap {
            file: self.file.clone(),
            earlier: earlier.file.clone(),
            examples,
            prompts,
        })
    }
}

/// Hashes a value; the order of an object's keys does not count.
fn hash(value: &Value) -> Hash {
    let mut hasher = blake3::Hasher::new();
    feed(&mut hasher, value);
    let mut hash = Hash::default();
    hasher.finalize_xof().fill(&mut hash);
    hash
}

fn feed(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Object(columns) => {
            let mut names: Vec<&String> = columns.keys().collect();
            names.sort_unstable();
            hasher.update(b"{");
            for name in names {
                feed(hasher, &Value::from(name.as_str()));
                feed(hasher, &columns[name]);
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            items.iter().for_each(|item| feed(hasher, item));
            hasher.update(b"]");
        }
        // As JSON: texts in quotes, so that no two values run into each other.
        plain => {
            hasher.update(plain.to_string().as_bytes()).update(b",");
        }
    }
}
