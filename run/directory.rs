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
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::Metrics;

const MARKER: &str = ".rollforge-run";
const MARK: &str = "made by rollforge\n";
const CHECKPOINTS: &str = "checkpoints";
const CONFIG: &str = "config.resolved.toml";
const LATEST: &str = "LATEST";

/// What to do about an earlier run in the same folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Earlier {
    /// Refuse to touch it.
    #[default]
    Refuse,
    /// Delete it first.
    Delete,
    /// Go on where its latest checkpoint stood.
    Resume,
}

/// What can be wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is something in it already.
    #[error("{} already exists and is not empty; choose another output directory or pass --clean", .0.display())]
    NotEmpty(PathBuf),
    /// It was to be emptied, but no run made it.
    #[error("{} is not a run directory (it has no {MARKER}); refusing to delete it", .0.display())]
    NotARun(PathBuf),
    /// There is no checkpoint to go on from.
    #[error("{} has no checkpoint to resume from: it is no run directory, or its run ended before the first", .0.display())]
    NoCheckpoint(PathBuf),
    /// It was made by a run of another configuration.
    #[error("{}:{line}: a run is resumed under the configuration it began with, which says `{was}`, not `{is}`", path.display())]
    OtherConfig {
        /// The configuration it began with.
        path: PathBuf,
        /// The first line that differs, from 1.
        line: usize,
        /// What it says.
        was: String,
        /// What it was to say.
        is: String,
    },
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
}

/// One line of `metrics.jsonl`.
#[derive(Serialize)]
struct MetricsLine<'a> {
    step: u64,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

impl RunDirectory {
    /// Says whether [`RunDirectory::create`] would go through, and changes nothing.
    ///
    /// # Errors
    /// When the folder is in use, is to be cleaned and is no run directory, or has nothing to resume from.
    pub fn check(path: &Path, earlier: Earlier) -> Result<(), DirectoryError> {
        if earlier == Earlier::Resume {
            return Self::latest(path).map(drop);
        }
        let clean = earlier == Earlier::Delete;
        let in_use = match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(DirectoryError::writing(path)(error)),
        };
        match (in_use, clean) {
            (false, _) => Ok(()),
            (true, false) => Err(DirectoryError::NotEmpty(path.to_owned())),
            (true, true) if path.join(MARKER).is_file() => Ok(()),
            (true, true) => Err(DirectoryError::NotARun(path.to_owned())),
        }
    }

    /// Makes the folder and puts the resolved configuration into it, or takes over that of an earlier run.
    ///
    /// # Errors
    /// When the folder is in use, is to be cleaned and is no run directory, is to be resumed under another configuration, or
    /// cannot be written.
    pub fn create(
        path: &Path,
        config_toml: &str,
        earlier: Earlier,
    ) -> Result<Self, DirectoryError> {
        Self::check(path, earlier)?;
        match earlier {
            Earlier::Refuse => {}
            Earlier::Delete if path.join(MARKER).is_file() => {
                fs::remove_dir_all(path).map_err(DirectoryError::writing(path))?;
            }
            Earlier::Delete => {}
            Earlier::Resume => same_config(&path.join(CONFIG), config_toml)?,
        }
        fs::create_dir_all(path).map_err(DirectoryError::writing(path))?;
        let marker = path.join(MARKER);
        fs::write(&marker, MARK).map_err(DirectoryError::writing(&marker))?;
        let config = path.join(CONFIG);
        fs::write(&config, config_toml).map_err(DirectoryError::writing(&config))?;
        let metrics = path.join("metrics.jsonl");
        let file = OpenOptions::new().create(true).append(true).open(&metrics);
        Ok(Self {
            path: path.to_owned(),
            metrics: file.map_err(DirectoryError::writing(&metrics))?,
        })
    }

    /// Makes a folder that holds several runs, or takes one over that an earlier call made.
    ///
    /// # Errors
    /// When there is something in it that is not ours, or it cannot be written.
    pub fn claim(path: &Path) -> Result<(), DirectoryError> {
        Self::check(path, Earlier::Delete)?;
        fs::create_dir_all(path).map_err(DirectoryError::writing(path))?;
        let marker = path.join(MARKER);
        fs::write(&marker, MARK).map_err(DirectoryError::writing(&marker))
    }

    /// Returns the newest checkpoint of the run in a folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn latest(path: &Path) -> Result<PathBuf, DirectoryError> {
        let none = || DirectoryError::NoCheckpoint(path.to_owned());
        let name = fs::read_to_string(path.join(LATEST)).map_err(|_| none())?;
        let checkpoint = path.join(name.trim());
        if path.join(MARKER).is_file() && checkpoint.is_dir() {
            Ok(checkpoint)
        } else {
            Err(none())
        }
    }

    /// Forgets what was recorded after a step: the lines of `metrics.jsonl` that a resumed run will write again.
    ///
    /// # Errors
    /// When the file cannot be read or written; it is then as it was.
    pub fn rewind(&mut self, step: u64) -> Result<(), DirectoryError> {
        let path = self.path.join("metrics.jsonl");
        let rewind = || {
            let text = fs::read_to_string(&path)?;
            let kept = text.lines().take_while(|line| step_of(line).is_some_and(|s| s <= step));
            let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
            let unfinished = self.path.join(".metrics.jsonl");
            fs::write(&unfinished, kept)?;
            File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, &path)?;
            OpenOptions::new().append(true).open(&path)
        };
        self.metrics = rewind().map_err(DirectoryError::writing(&path))?;
        Ok(())
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
        written.map_err(DirectoryError::writing(&self.path.join("metrics.jsonl")))
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

    /// Writes `checkpoints/step_N`: `write` fills a folder of another name, which is synced, renamed, and then named
    /// in `LATEST`. Returns where it is.
    ///
    /// # Errors
    /// Those of `write`, and when the folder cannot be made, synced or renamed. No half of a checkpoint stays.
    pub fn checkpoint<E: From<DirectoryError>>(
        &self,
        step: u64,
        write: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let name = format!("step_{step}");
        let folder = self.path.join(CHECKPOINTS);
        let (unfinished, finished) =
            (folder.join(format!(".{name}.unfinished")), folder.join(&name));
        remove(&unfinished)?;
        fs::create_dir_all(&unfinished).map_err(DirectoryError::writing(&unfinished))?;
        if let Err(error) = write(&unfinished) {
            remove(&unfinished)?;
            return Err(error);
        }
        sync_tree(&unfinished).map_err(DirectoryError::writing(&unfinished))?;
        remove(&finished)?;
        fs::rename(&unfinished, &finished).map_err(DirectoryError::writing(&finished))?;
        self.name_latest(&name)?;
        Ok(finished)
    }

    /// Deletes all but the newest `keep` checkpoints. 0 keeps all.
    ///
    /// # Errors
    /// When one cannot be deleted.
    pub fn prune(&self, keep: usize) -> Result<(), DirectoryError> {
        let mut steps = self.checkpoints();
        steps.sort_unstable();
        let surplus = if keep == 0 { 0 } else { steps.len().saturating_sub(keep) };
        for step in &steps[..surplus] {
            remove(&self.path.join(CHECKPOINTS).join(format!("step_{step}")))?;
        }
        Ok(())
    }

    fn checkpoints(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.path.join(CHECKPOINTS)).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("step_")?.parse().ok())
            .collect()
    }

    fn name_latest(&self, name: &str) -> Result<(), DirectoryError> {
        let (unfinished, latest) = (self.path.join(".LATEST"), self.path.join(LATEST));
        let write = || {
            // The checkpoint first: LATEST must not outlive a crash that its checkpoint does not.
            sync_folder(&self.path.join(CHECKPOINTS))?;
            fs::write(&unfinished, format!("{CHECKPOINTS}/{name}\n"))?;
            File::open(&unfinished)?.sync_all()?;
            fs::rename(&unfinished, &latest)?;
            sync_folder(&self.path)
        };
        write().map_err(DirectoryError::writing(&latest))
    }
}

/// Returns the step of a line of `metrics.jsonl`; nothing of a line that a crash cut off.
fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

/// Checks that a run goes on as it began.
fn same_config(path: &Path, config_toml: &str) -> Result<(), DirectoryError> {
    let was = fs::read_to_string(path)
        .map_err(|source| DirectoryError::Read { path: path.to_owned(), source })?;
    let (mut old, mut new) = (was.lines(), config_toml.lines());
    for line in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (was, is) if was == is => {}
            (was, is) => {
                let (was, is) = (was.unwrap_or("").to_owned(), is.unwrap_or("").to_owned());
                return Err(DirectoryError::OtherConfig { path: path.to_owned(), line, was, is });
            }
        }
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), DirectoryError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DirectoryError::writing(folder)(error))
        }
        _ => Ok(()),
    }
}

/// Makes a folder and all that is in it durable.
pub(super) fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_folder(folder)
}

/// Makes the names in a folder durable, as the files' own sync does not.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, RunDirectory) {
        let parent = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(&parent.path().join("a/run"), "seed = 1\n", Earlier::Refuse)
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
            (Earlier::Resume, "no checkpoint to resume from"),
        ] {
            let error = RunDirectory::create(folder.path(), "", earlier).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_earlier_run_is_deleted_only_when_asked() {
        let (_parent, mut run) = fresh();
        run.record(1, &Metrics::new().with("loss", 1.0)).unwrap();
        assert!(RunDirectory::create(run.path(), "", Earlier::Refuse).is_err());
        RunDirectory::create(run.path(), "", Earlier::Delete).unwrap();
        assert_eq!(fs::read_to_string(run.path().join("metrics.jsonl")).unwrap(), "");
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
            RunDirectory::create(&file.path().join("run"), "", Earlier::Refuse).unwrap_err();
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
    fn a_checkpoint_that_fails_leaves_nothing_and_the_last_one_stays() {
        let (_parent, run) = fresh();
        let write = |text: &'static str| {
            move |folder: &Path| {
                fs::create_dir(folder.join("policy")).expect("fresh");
                fs::write(folder.join("policy/weights"), text)
                    .map_err(DirectoryError::writing(folder))
            }
        };
        let first = run.checkpoint(1, write("one")).unwrap();
        let failed = run.checkpoint(2, |folder: &Path| {
            fs::write(folder.join("half"), "x").expect("fresh");
            Err(DirectoryError::NotARun(folder.to_owned()))
        });
        assert!(failed.is_err());
        let names: Vec<_> = fs::read_dir(run.path().join("checkpoints")).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(fs::read_to_string(first.join("policy/weights")).unwrap(), "one");
        assert_eq!(fs::read_to_string(run.path().join("LATEST")).unwrap(), "checkpoints/step_1\n");
        run.checkpoint(1, write("again")).unwrap();
        assert_eq!(fs::read_to_string(first.join("policy/weights")).unwrap(), "again");
    }

    #[test]
    fn pruning_keeps_the_newest_by_number() {
        let (_parent, run) = fresh();
        for step in [2, 10, 9] {
            run.checkpoint(step, |_: &Path| Ok::<(), DirectoryError>(())).unwrap();
        }
        run.prune(0).unwrap();
        assert_eq!(run.checkpoints().len(), 3);
        run.prune(2).unwrap();
        let mut left = run.checkpoints();
        left.sort_unstable();
        assert_eq!(left, [9, 10]);
    }

    #[test]
    fn a_run_is_resumed_under_its_own_configuration_and_forgets_what_came_after() {
        let (_parent, mut run) = fresh();
        for step in 1..=4 {
            run.record(step, &Metrics::new().with("loss", 1.0)).unwrap();
        }
        let open = |config| RunDirectory::create(run.path(), config, Earlier::Resume);
        assert!(matches!(open("seed = 1\n"), Err(DirectoryError::NoCheckpoint(_))));
        run.checkpoint(2, |_: &Path| Ok::<(), DirectoryError>(())).unwrap();
        let error = open("seed = 2\n").unwrap_err().to_string();
        assert!(error.ends_with("config.resolved.toml:1: a run is resumed under the configuration it began with, which says `seed = 1`, not `seed = 2`"), "{error}");
        let mut again = open("seed = 1\n").unwrap();
        again.rewind(2).unwrap();
        again.record(3, &Metrics::new().with("loss", 0.5)).unwrap();
        let text = fs::read_to_string(run.path().join("metrics.jsonl")).unwrap();
        assert_eq!(text.lines().filter_map(step_of).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
