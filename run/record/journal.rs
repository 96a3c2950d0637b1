//! What a run had to say: `journal.jsonl`, one JSON object a line.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::lines::{LineFile, Lines};
use crate::run::DirectoryError;

const FILE: &str = "journal.jsonl";

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// Something good to know.
    Note,
    /// Something that is not as it should be; the run goes on.
    Warning,
    /// A checkpoint was written.
    Checkpoint,
    /// The run went on from a checkpoint.
    Resume,
    /// The run was asked to stop.
    Stop,
    /// What ended the run.
    Error,
}

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When (seconds since 1970).
    pub time: f64,
    /// The step (PPO: iteration) under way, from 1; 0 before the first.
    pub step: u64,
    /// What it is about.
    pub kind: EntryKind,
    /// Whom it is about, such as an invariant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What there is to say, in one line.
    pub text: String,
}

/// An open `journal.jsonl`. A resumed run appends to what is there.
#[derive(Debug)]
pub struct Journal(LineFile);

impl Journal {
    /// Opens the journal of a run directory, or begins it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(run: &Path) -> Result<Self, DirectoryError> {
        Ok(Self(LineFile::open(run.join(FILE))?))
    }

    /// Appends an entry of now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(
        &mut self,
        step: u64,
        (kind, name): (EntryKind, Option<&str>),
        text: &str,
    ) -> Result<(), DirectoryError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (name, text) = (name.map(str::to_owned), text.to_owned());
        let entry = Entry { time: now.as_secs_f64(), step, kind, name, text };
        self.0.write(serde_json::to_string(&entry).expect("texts and numbers are JSON"))
    }

    /// Appends what ended a run that cannot write it down itself, if there is a journal.
    pub(in crate::run) fn note_end(run: &Path, text: &str) {
        if !run.join(FILE).exists() {
            return;
        }
        // A journal that cannot be written is no reason to hide what ended the run.
        let journal = Self::open(run);
        drop(journal.and_then(|mut journal| journal.write(0, (EntryKind::Error, None), text)));
    }

    /// Reads the journal of a run directory; empty where it has none. What a later version may have put there is passed
    /// over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(run: &Path) -> Result<Vec<Entry>, DirectoryError> {
        let path = run.join(FILE);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let lines = Lines::open(path)?.map(|line| Ok(serde_json::from_str(&line?).ok()));
        lines.filter_map(Result::transpose).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_back_as_they_were_written_and_a_resumed_run_appends() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Journal::read(run.path()).unwrap(), []);
        let mut journal = Journal::open(run.path()).unwrap();
        journal.write(0, (EntryKind::Note, None), "100 rows").unwrap();
        let mut journal = Journal::open(run.path()).unwrap();
        journal.write(3, (EntryKind::Warning, Some("ratio")), "ratio is 1.1").unwrap();
        let entries = Journal::read(run.path()).unwrap();
        let seen = entries.iter().map(|e| (e.step, e.kind, e.name.as_deref(), e.text.as_str()));
        let expected = [
            (0, EntryKind::Note, None, "100 rows"),
            (3, EntryKind::Warning, Some("ratio"), "ratio is 1.1"),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
        assert!(entries[0].time > 1.7e9 && entries[0].time <= entries[1].time, "{entries:?}");
    }
}
