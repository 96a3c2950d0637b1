//! `report.html`: a run on one page that needs nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{html, recording::Recording};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No run made the folder.
    #[error("{} is no run directory: it has no config.resolved.toml{}", path.display(), hint(.runs))]
    NotARun {
        /// The folder.
        path: PathBuf,
        /// Runs that lie in it.
        runs: Vec<String>,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The page.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn hint(runs: &[String]) -> String {
    match runs {
        [] => String::new(),
        runs => format!("; the runs in it are {}", runs.join(", ")),
    }
}

/// A run's report, written again as the run goes on.
#[derive(Debug)]
pub struct Report {
    recording: Recording,
}

impl Report {
    /// Reports on the run in a folder, which need not be there yet.
    pub fn new(run: &Path) -> Self {
        Self { recording: Recording::new(run) }
    }

    /// Writes the page with all that the run's files say by now. It appears whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, path: &Path) -> Result<(), ReportError> {
        self.recording.catch_up();
        let page = html::report(&self.recording.snapshot());
        let writing = |source| ReportError::Write { path: path.to_owned(), source };
        let name = path.file_name().ok_or_else(|| writing(io::ErrorKind::IsADirectory.into()))?;
        let unfinished = path.with_file_name(format!(".{}", name.to_string_lossy()));
        fs::write(&unfinished, page).and_then(|()| fs::rename(&unfinished, path)).map_err(|error| {
            fs::remove_file(&unfinished).ok();
            writing(error)
        })
    }
}

/// Checks that a folder holds a run.
///
/// # Errors
/// When it does not; runs that lie in it are named.
pub fn check_run(path: &Path) -> Result<(), ReportError> {
    let is_run = |folder: &Path| folder.join("config.resolved.toml").is_file();
    if is_run(path) {
        return Ok(());
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let runs = entries.map(|entry| entry.path()).filter(|folder| is_run(folder));
    let mut runs: Vec<String> = runs.map(|run| run.display().to_string()).take(20).collect();
    runs.sort();
    Err(ReportError::NotARun { path: path.to_owned(), runs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_runs_is_no_run_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let said = check_run(folder.path()).unwrap_err().to_string();
        assert!(said.ends_with("it has no config.resolved.toml"), "{said}");
        for run in ["sft", "ppo"] {
            fs::create_dir(folder.path().join(run)).unwrap();
            fs::write(folder.path().join(run).join("config.resolved.toml"), "").unwrap();
        }
        let said = check_run(folder.path()).unwrap_err().to_string();
        assert!(said.contains("the runs in it are") && said.ends_with("/sft"), "{said}");
        check_run(&folder.path().join("ppo")).unwrap();
    }

    #[test]
    fn a_report_that_cannot_be_written_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        fs::create_dir(&path).unwrap();
        let said = Report::new(folder.path()).write(&path).unwrap_err().to_string();
        assert!(said.contains("report.html"), "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
