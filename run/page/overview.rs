//! What a run is, how far it has come, and what it stands on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{journal::Journal, watched::Watched};

/// The tables that tell a configuration's stage.
const STAGES: [(&str, &str); 4] =
    [("ppo", "ppo"), ("sft", "sft"), ("reward_model", "rm"), ("dpo", "dpo")];

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Head {
    name: String,
    /// "ppo", "sft", "rm", "dpo"; nothing where the configuration is missing.
    stage: Option<&'static str>,
    state: State,
    /// Why it stopped.
    reason: Option<String>,
    pub(super) step: u64,
    pub(super) total: Option<u64>,
    /// When it began, or went on last, and when it last wrote something: Unix seconds.
    begun: Option<f64>,
    updated: Option<f64>,
    /// The newest checkpoint's name.
    checkpoint: Option<String>,
    /// Steps that have one.
    checkpoints: Vec<u64>,
}

impl Head {
    /// Returns the run's name: its folder's.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Nothing says that it ended. It may have been killed.
    Running,
    Finished,
    Stopped,
}

/// The small files of a run directory.
#[derive(Debug)]
pub(super) struct Overview {
    folder: PathBuf,
    config: Watched,
    plan: Watched,
    latest: Watched,
    checkpoints: Vec<u64>,
    keys: toml::Table,
}

impl Overview {
    pub(super) fn new(folder: &Path) -> Self {
        let watch = |name: &str| Watched::new(folder.join(name));
        Self {
            folder: folder.to_owned(),
            config: watch("config.resolved.toml"),
            plan: watch("plan.json"),
            latest: watch("LATEST"),
            checkpoints: Vec::new(),
            keys: toml::Table::new(),
        }
    }

    /// Reads what has changed. Says whether only the head has, or the files behind it.
    pub(super) fn poll(&mut self) -> (bool, bool) {
        let latest = self.latest.poll();
        if latest {
            self.checkpoints = checkpoints(&self.folder.join("checkpoints"));
        }
        let config = self.config.poll();
        if config {
            self.keys = self.config.text().and_then(|text| text.parse().ok()).unwrap_or_default();
        }
        let plan = self.plan.poll();
        (latest, config || plan)
    }

    /// Returns how far the run has come.
    pub(super) fn head(&self, journal: &Journal, step: u64, updated: Option<f64>) -> Head {
        let total = journal.total.or_else(|| self.total());
        let state = match &journal.end {
            Some(_) if journal.is_finished() => State::Finished,
            Some(_) => State::Stopped,
            None if total.is_some_and(|total| step >= total) => State::Finished,
            None => State::Running,
        };
        let reason = journal.end.as_ref().filter(|_| state == State::Stopped);
        let name = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        Head {
            name: name.file_name().unwrap_or(name.as_os_str()).to_string_lossy().into_owned(),
            stage: self.stage(),
            state,
            reason: reason.map(|end| end.text.clone()),
            step,
            total,
            begun: journal.begun.or_else(|| self.config.written()),
            updated: updated.or_else(|| self.config.written()),
            checkpoint: self.latest.text().map(|name| name.trim().to_owned()),
            checkpoints: self.checkpoints.clone(),
        }
    }

    /// Returns the resolved configuration, with the batch arithmetic on top.
    pub(super) fn config(&self) -> Option<&str> {
        self.config.text()
    }

    /// Returns the memory plan.
    pub(super) fn plan(&self) -> Option<serde_json::Value> {
        serde_json::from_str(self.plan.text()?).ok()
    }

    /// Returns what is done about each broken invariant: the words of `[invariants]`.
    pub(super) fn policies(&self) -> BTreeMap<&str, &str> {
        let table = self.keys.get("invariants").and_then(toml::Value::as_table);
        let words = table.into_iter().flatten();
        words.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
    }

    fn stage(&self) -> Option<&'static str> {
        let (_, stage) = STAGES.iter().find(|(table, _)| self.keys.contains_key(*table))?;
        Some(stage)
    }

    fn total(&self) -> Option<u64> {
        let iterations = self.keys.get("ppo")?.get("iterations")?.as_integer()?;
        iterations.try_into().ok()
    }
}

/// Returns the steps that have a checkpoint, in order.
fn checkpoints(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let step =
        |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("step_")?.parse().ok();
    let mut steps: Vec<u64> = entries.filter_map(step).collect();
    steps.sort_unstable();
    steps
}
