//! The report in a run's directory.

use std::path::{Path, PathBuf};

use super::report::{Report, ReportError};

/// `report.html` of a run under way.
///
/// # Drop
/// Writes it a last time: whichever way a run ends, its report says how. Where that cannot be done, the run's own error
/// counts.
#[derive(Debug)]
pub struct KeptReport {
    report: Report,
    path: PathBuf,
}

impl KeptReport {
    /// Keeps the report of the run in a folder.
    pub fn of(run: &Path) -> Self {
        Self { report: Report::new(run), path: run.join("report.html") }
    }

    /// Writes the page as of now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self) -> Result<(), ReportError> {
        self.report.write(&self.path)
    }
}

impl Drop for KeptReport {
    fn drop(&mut self) {
        self.write().ok();
    }
}
