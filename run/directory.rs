//! The folder that holds everything about one run.
//!
//! ```text
//! runs/first/
//!   .rollforge-run          marks the folder as ours, so that `--clean` never deletes another
//!   config.resolved.toml    the configuration, every default spelled out
//!   metrics.jsonl           one JSON object per step, flushed line by line
//!   samples/iteration_N.jsonl
//!   checkpoints/step_N/     written under another name, synced, renamed: there whole or not at all
//!   LATEST                  the newest checkpoint's name
//!   .lock                   locked by the process that runs here
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Earlier, Metrics,
    checkpoint::{CheckpointError, Checkpoints},
    durable::replace_file,
    lock::{LOCK, RunLock},
};

const MARKER: &str = ".rollforge-run";
const MARK: &str = "made by rollforge\n";
const CONFIG: &str = "config.resolved.toml";
const METRICS: &str = "metrics.jsonl";

/// What can be wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is something in it already.
    #[error("{} already exists and is not empty; choose another output directory or pass --clean", .0.display())]
    NotEmpty(PathBuf),
    /// It was to be emptied, but no run made it.
    #[error("{} is not a run directory (it has no {MARKER}); refusing to delete it", .0.display())]
    NotARun(PathBuf),
    /// It was to go on, but no run made it.
    #[error("{} is not a run directory (it has no {MARKER}); there is nothing to resume", .0.display())]
    NothingToResume(PathBuf),
    /// Another process runs in it.
    #[error("{} is in use by {by}", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process, and since when.
        by: String,
    },
    /// Something is wrong with its checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It, or a file in it, cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DirectoryError {
    pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Write { path: path.to_owned(), source }
    }
}

/// An open run directory.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    metrics: File,
    _lock: RunLock,
}

/// One line of `metrics.jsonl`.
#[derive(Serialize)]
struct MetricsLine<'a> {
    step: u64,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

impl RunDirectory {
    /// Says whether a run could begin in the folder, and changes nothing.
    ///
    /// # Errors
    /// When the folder is in use, or is to be cleaned or resumed and is no run directory.
    pub fn check(path: &Path, earlier: Earlier) -> Result<(), DirectoryError> {
        let ours = path.join(MARKER).is_file();
        if earlier.resumes() {
            return if ours {
                Ok(())
            } else {
                Err(DirectoryError::NothingToResume(path.to_owned()))
            };
        }
        let in_use = match fs::read_dir(path) {
            Ok(entries) => entries.flatten().any(|entry| entry.file_name() != LOCK),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(DirectoryError::writing(path)(error)),
        };
        match (in_use, earlier) {
            (false, _) => Ok(()),
            (true, Earlier::Delete) if ours => Ok(()),
            (true, Earlier::Delete) => Err(DirectoryError::NotARun(path.to_owned())),
            (true, _) => Err(DirectoryError::NotEmpty(path.to_owned())),
        }
    }

    /// Takes the lock of a run directory that is there already, so that nobody else writes into it from now on.
    ///
    /// # Errors
    /// When another process has it, which is named.
    pub(super) fn lock(path: &Path) -> Result<Option<RunLock>, DirectoryError> {
        if path.join(MARKER).is_file() { RunLock::take(path).map(Some) } else { Ok(None) }
    }

    /// Makes the folder and puts the resolved configuration into it, or takes over that of an earlier run. `lock` is
    /// its lock, where it was there already.
    ///
    /// # Errors
    /// As [`RunDirectory::check`], and when the folder cannot be written.
    pub(super) fn create(
        path: &Path,
        config_toml: &str,
        earlier: Earlier,
        lock: Option<RunLock>,
    ) -> Result<Self, DirectoryError> {
        Self::check(path, earlier)?;
        fs::create_dir_all(path).map_err(DirectoryError::writing(path))?;
        let lock = lock.map_or_else(|| RunLock::take(path), Ok)?;
        // Under the lock, for somebody may have been faster.
        Self::check(path, earlier)?;
        if earlier == Earlier::Delete {
            empty(path)?;
        }
        let marker = path.join(MARKER);
        fs::write(&marker, MARK).map_err(DirectoryError::writing(&marker))?;
        let config = path.join(CONFIG);
        let written = replace_file(&config, config_toml.as_bytes());
        written.map_err(DirectoryError::writing(&config))?;
        let metrics = append(&path.join(METRICS))?;
        Ok(Self { path: path.to_owned(), metrics, _lock: lock })
    }

    /// Makes a folder that holds several runs, or takes one over that an earlier call made. It is the caller's for as
    /// long as what is returned lives.
    ///
    /// # Errors
    /// When there is something in it that is not ours, another process has it, or it cannot be written.
    pub fn claim(path: &Path) -> Result<RunLock, DirectoryError> {
        Self::check(path, Earlier::Delete)?;
        fs::create_dir_all(path).map_err(DirectoryError::writing(path))?;
        let lock = RunLock::take(path)?;
        let marker = path.join(MARKER);
        fs::write(&marker, MARK).map_err(DirectoryError::writing(&marker))?;
        Ok(lock)
    }

    /// Returns the configuration of the run in a folder, as it was resolved; `None` if it never got that far.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn config(path: &Path) -> Result<Option<(PathBuf, String)>, DirectoryError> {
        let path = path.join(CONFIG);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(DirectoryError::Read { path, source }),
        }
    }

    /// Forgets what came after a step: its checkpoints, and the lines of `metrics.jsonl` that a resumed run will write
    /// again. Step 0 is the beginning.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub(super) fn rewind(&mut self, step: u64) -> Result<(), DirectoryError> {
        self.sweep()?;
        let checkpoints = self.checkpoints();
        checkpoints.sweep()?;
        if checkpoints.latest()?.is_some() {
            checkpoints.rewind(step)?;
        }
        let path = self.path.join(METRICS);
        let text = fs::read_to_string(&path)
            .map_err(|source| DirectoryError::Read { path: path.clone(), source })?;
        let kept = text.lines().take_while(|line| step_of(line).is_some_and(|s| s <= step));
        let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
        replace_file(&path, kept.as_bytes()).map_err(DirectoryError::writing(&path))?;
        self.metrics = append(&path)?;
        Ok(())
    }

    /// Deletes what a kill left of files that were to take the place of others.
    fn sweep(&self) -> Result<(), DirectoryError> {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(".unfinished") {
                let path = entry.path();
                fs::remove_file(&path).map_err(DirectoryError::writing(&path))?;
            }
        }
        Ok(())
    }

    /// Returns its checkpoints.
    pub(super) fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of(&self.path)
    }

    /// Waits until the metrics are on the disk, as a checkpoint's files are: it is the position in them that it goes
    /// on from.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn sync(&self) -> Result<(), DirectoryError> {
        self.metrics.sync_data().map_err(DirectoryError::writing(&self.path.join(METRICS)))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends one line to `metrics.jsonl`: `{"step": 3, "loss": 1.5, ...}`.
    ///
    /// # Errors
    /// When the line cannot be written.
    pub fn record(&mut self, step: u64, metrics: &Metrics) -> Result<(), DirectoryError> {
        let mut line = serde_json::to_string(&MetricsLine { step, metrics })
            .expect("names are strings and numbers are numbers");
        line.push('\n');
        // One write call per line: a reader, or a crash, never meets half of one.
        let written = self.metrics.write_all(line.as_bytes());
        written.map_err(DirectoryError::writing(&self.path.join(METRICS)))
    }

    /// Writes a file of the run as a whole, over an earlier one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(DirectoryError::writing(&path))
    }

    /// Writes `samples/iteration_N.jsonl`, one row per line.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn samples<T: Serialize>(&self, iteration: u64, rows: &[T]) -> Result<(), DirectoryError> {
        let folder = self.path.join("samples");
        fs::create_dir_all(&folder).map_err(DirectoryError::writing(&folder))?;
        let path = folder.join(format!("iteration_{iteration}.jsonl"));
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)
                .map_err(|error| DirectoryError::writing(&path)(error.into()))?;
            lines.push(b'\n');
        }
        fs::write(&path, lines).map_err(DirectoryError::writing(&path))
    }
}

/// Returns the step of a line of `metrics.jsonl`; nothing of a line that a crash cut off.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

fn append(path: &Path) -> Result<File, DirectoryError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(DirectoryError::writing(path))
}

/// Deletes all that is in a folder but its lock, which is ours.
fn empty(folder: &Path) -> Result<(), DirectoryError> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = match entry.file_type() {
            _ if entry.file_name() == LOCK => Ok(()),
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        removed.map_err(DirectoryError::writing(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, RunDirectory) {
        let parent = tempfile::tempdir().unwrap();
        let run =
            RunDirectory::create(&parent.path().join("a/run"), "seed = 1\n", Earlier::Refuse, None)
                .unwrap();
        (parent, run)
    }

    #[test]
    fn a_folder_in_use_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("thesis.tex"), "years of work").unwrap();
        for (earlier, words) in [
            (Earlier::Refuse, "not empty"),
            (Earlier::Delete, "not a run directory"),
            (Earlier::Resume, "there is nothing to resume"),
        ] {
            let error =
                RunDirectory::create(folder.path(), "", earlier, None).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_earlier_run_is_deleted_only_when_asked() {
        let (_parent, mut run) = fresh();
        run.record(1, &Metrics::new().with("loss", 1.0)).unwrap();
        let path = run.path().to_owned();
        drop(run);
        let create = |earlier| RunDirectory::create(&path, "", earlier, None);
        assert!(create(Earlier::Refuse).is_err());
        create(Earlier::Delete).unwrap();
        assert_eq!(fs::read_to_string(path.join("metrics.jsonl")).unwrap(), "");
    }

    #[test]
    fn a_claim_is_refused_where_others_have_files_and_may_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        RunDirectory::claim(folder.path()).unwrap();
        fs::write(folder.path().join("data"), "").unwrap();
        RunDirectory::claim(folder.path()).unwrap();
        fs::remove_file(folder.path().join(MARKER)).unwrap();
        assert!(RunDirectory::claim(folder.path()).is_err());
    }

    #[test]
    fn a_path_that_cannot_be_a_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error =
            RunDirectory::create(&file.path().join("run"), "", Earlier::Refuse, None).unwrap_err();
        let path = file.path().display().to_string();
        assert!(
            matches!(&error, DirectoryError::Write { .. }) && error.to_string().contains(&path)
        );
    }

    #[test]
    fn metrics_are_there_as_soon_as_they_are_recorded() {
        let (_parent, mut run) = fresh();
        run.record(1, &Metrics::new().with("objective/kl", 0.5)).unwrap();
        run.record(2, &Metrics::new().with("objective/kl", f64::NAN)).unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text, "{\"step\":1,\"objective/kl\":0.5}\n{\"step\":2,\"objective/kl\":null}\n");
    }

    #[test]
    fn a_resumed_run_forgets_what_came_after_its_checkpoint_and_what_a_kill_cut_off() {
        let (_parent, mut run) = fresh();
        for step in 1..=4 {
            run.record(step, &Metrics::new().with("loss", 1.0)).unwrap();
        }
        for step in [2, 4] {
            run.checkpoints().write((step, None), |_| Ok(())).unwrap();
        }
        let path = run.path().to_owned();
        let metrics = path.join(METRICS);
        let cut = fs::read_to_string(&metrics).unwrap() + "{\"step\":5,\"lo";
        fs::write(&metrics, cut).unwrap();
        fs::write(path.join(".LATEST.unfinished"), "check").unwrap();
        drop(run);
        let mut again =
            RunDirectory::create(&path, "seed = 1\n", Earlier::ResumeFrom(2), None).unwrap();
        again.rewind(2).unwrap();
        assert_eq!(again.checkpoints().latest().unwrap(), Some(2));
        again.record(3, &Metrics::new().with("loss", 0.5)).unwrap();
        let text = fs::read_to_string(metrics).unwrap();
        assert_eq!(text.lines().filter_map(step_of).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(!path.join("checkpoints/step_4").exists());
        assert!(!path.join(".LATEST.unfinished").exists());
    }

    #[test]
    fn a_run_directory_is_one_processs_and_not_even_to_be_cleaned_by_another() {
        let (_parent, run) = fresh();
        for earlier in [Earlier::Delete, Earlier::Resume] {
            let lock = RunDirectory::lock(run.path());
            assert!(matches!(lock, Err(DirectoryError::InUse { .. })), "{earlier:?}");
            let error = RunDirectory::create(run.path(), "", earlier, None).unwrap_err();
            assert!(matches!(error, DirectoryError::InUse { .. }), "{error}");
        }
        assert!(run.path().join(CONFIG).is_file());
    }
}
