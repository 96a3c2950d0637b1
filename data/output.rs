//! JSON Lines files that are there whole at the end, or not at all.

use std::{
    fs::{File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::Error;

/// A file that is being written, row by row.
///
/// # Drop
/// Leaves nothing, unless [`RowFile::finish`] came first.
#[derive(Debug)]
pub struct RowFile {
    path: PathBuf,
    folder: PathBuf,
    file: BufWriter<NamedTempFile>,
    replace: bool,
}

impl RowFile {
    /// Begins a file under another name in the same folder.
    ///
    /// # Errors
    /// When it would be no JSON Lines file by its name, cannot be written, or is there already and may not be replaced.
    pub fn create(path: &Path, replace: bool) -> Result<Self, Error> {
        check(path, replace)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).to_owned();
        let file = beside(path, &folder).map_err(|source| failed(path, source))?;
        Ok(Self { path: path.into(), folder, file: BufWriter::new(file), replace })
    }

    /// Writes a row.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn write(&mut self, row: &Map<String, Value>) -> Result<(), Error> {
        let written = serde_json::to_writer(&mut self.file, row).map_err(io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|source| failed(&self.path, source))
    }

    /// Gives the file its name, once all of it is on the disk.
    ///
    /// # Errors
    /// When it cannot; nothing is left then.
    pub fn finish(self) -> Result<(), Error> {
        let Self { path, folder, file, replace } = self;
        let persist = || {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            let persisted =
                if replace { file.persist(&path) } else { file.persist_noclobber(&path) };
            persisted.map_err(|error| error.error)?;
            // The name itself.
            File::open(&folder)?.sync_all()
        };
        persist().map_err(|source| failed(&path, source))
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write { path: path.into(), source }
}

/// Refuses what would be found out only after the work.
fn check(path: &Path, replace: bool) -> Result<(), Error> {
    let refuse = |message: &str| Err(Error::File { path: path.into(), message: message.into() });
    let extension = path.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("jsonl" | "ndjson" | "json")) {
        return refuse("JSON Lines are written: the name must end in .jsonl, .json or .ndjson");
    }
    if path.exists() && !replace {
        return refuse("exists already");
    }
    Ok(())
}

/// Opens a file under another name in the folder, with the rights of any new file; it goes away unless it is renamed.
fn beside(path: &Path, folder: &Path) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut builder = tempfile::Builder::new();
    let prefix = format!(".{name}.");
    builder.prefix(&prefix);
    builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}
