//! The `[reward]` section: what a completion is worth, as one source says or several do.
//!
//! ```toml
//! [reward]                    # one source
//! kind = "exact_match"
//! column = "answer"
//! ```
//!
//! ```toml
//! [[reward.sources]]          # several: the reward is their weighted sum
//! kind = "numeric"
//! column = "answer"
//!
//! [[reward.sources]]
//! kind = "length"
//! cache_tokens = 32
//! weight = 0.5
//! ```

mod http;
mod kind;
mod read;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::Violation;

pub use http::HttpReward;
pub use kind::{RewardKind, Take};

/// The `[reward]` section.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardConfig {
    /// What is asked, at least one.
    pub sources: Vec<RewardSource>,
}

/// One source of rewards.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RewardSource {
    /// What its metrics and errors call it. Default its kind.
    pub name: String,
    /// What its rewards are multiplied by in the sum. Of one with weight 0 there are metrics and nothing else. Default 1.
    pub weight: f64,
    /// What it does.
    #[serde(flatten)]
    pub kind: RewardKind,
}

impl RewardConfig {
    /// Returns the directories of the reward models in the process.
    pub fn models(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().filter_map(|source| source.kind.model())
    }

    /// Returns the reward model that a critic can start from, the only one there is, and what its labels count.
    pub fn critic(&self) -> Option<(&Path, &BTreeMap<String, f64>)> {
        let mut models = self.sources.iter().filter_map(|source| match &source.kind {
            RewardKind::Model { path, weights, .. } => Some((path.as_path(), weights)),
            _ => None,
        });
        models.next().filter(|_| models.next().is_none())
    }

    /// Returns every file and folder that the sources read.
    pub fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.models().chain(self.sources.iter().filter_map(|source| source.kind.schema_file()))
    }

    /// Makes paths those of the configuration file's folder, and spells out what follows from other sections.
    pub(super) fn resolve(&mut self, folder: &Path, max_new_tokens: usize) {
        for source in &mut self.sources {
            source.kind.resolve(folder, max_new_tokens);
        }
    }

    pub(super) fn validate(&self, max_new_tokens: usize) -> Result<(), Violation> {
        let (key, rule) = ("reward.sources", "at least one source");
        Violation::unless(!self.sources.is_empty(), key, rule, "none")?;
        let mut names = BTreeSet::new();
        for (place, source) in self.sources.iter().enumerate() {
            let key = |field: &str| match self.sources.len() {
                1 => format!("reward.{field}"),
                _ => format!("reward.sources[{place}].{field}"),
            };
            source.validate().map_err(|broken| Violation { key: key(&broken.key), ..broken })?;
            source
                .kind
                .validate(max_new_tokens)
                .map_err(|broken| Violation { key: key(&broken.key), ..broken })?;
            let rule = "another than that of the sources before it";
            let name = format!("{:?}", source.name);
            Violation::unless(names.insert(&source.name), key("name"), rule, name)?;
        }
        Ok(())
    }

    /// Says why no critic can start from a reward model.
    pub(super) fn describe(&self) -> String {
        match &self.sources[..] {
            [only] => format!("reward.kind is {:?}", only.kind.name()),
            several => {
                let models = several.iter().filter(|source| source.kind.model().is_some()).count();
                format!("reward.sources has {models} of kind \"model\", not one")
            }
        }
    }
}

impl RewardSource {
    fn validate(&self) -> Result<(), Violation> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let named = !self.name.is_empty() && self.name.chars().all(plain);
        let rule = "of letters, digits, _ and -, for metrics are called by it";
        Violation::unless(named, "name", rule, format!("{:?}", self.name))?;
        Violation::unless(self.weight.is_finite(), "weight", "finite", self.weight)
    }
}

/// Makes a path that of a folder.
fn join(folder: &Path, path: &mut PathBuf) {
    *path = folder.join(&*path);
}
