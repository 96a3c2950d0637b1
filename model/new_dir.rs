//! A directory that is there complete, or not at all.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{Error, error::Result};

/// Lets `write` fill a directory under a temporary name beside `dir`, syncs it to the disk and renames it.
///
/// # Errors
/// When the directory exists and may not be replaced, cannot be written, or `write` fails. Then nothing is left behind,
/// and a directory that was to be replaced is as it was.
pub(crate) fn write_dir<E: From<Error>>(
    dir: &Path,
    replace: bool,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    if dir.exists() && !replace {
        return Err(Error::Exists { path: dir.to_owned() }.into());
    }
    let parent = parent(dir);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let temporary = temporary_beside(dir, &parent)?;
    write(temporary.path())?;
    sync_dir(temporary.path())?;
    put_in_place(temporary, dir, &parent)?;
    Ok(sync_dir(&parent)?)
}

fn parent(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn temporary_beside(dir: &Path, parent: &Path) -> Result<tempfile::TempDir> {
    let name = dir.file_name().ok_or_else(|| Error::file(dir, "is not the name of a directory"))?;
    let prefix = format!(".{}.", name.to_string_lossy());
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(parent)
        .map_err(Error::io("write into", parent))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(Error::io("sync", dir))
}

/// Renames the finished directory. An old one is first moved aside, and back again should the rename fail.
fn put_in_place(temporary: tempfile::TempDir, dir: &Path, parent: &Path) -> Result<()> {
    let aside = match dir.exists() {
        true => Some(temporary_beside(dir, parent)?),
        false => None,
    };
    let old = aside.as_ref().map(|aside| aside.path().join("old"));
    if let Some(old) = &old {
        fs::rename(dir, old).map_err(Error::io("replace", dir))?;
    }
    match fs::rename(temporary.path(), dir) {
        Ok(()) => {
            // Renamed away: nothing is left for the guard to remove.
            let _ = temporary.keep();
            Ok(())
        }
        Err(error) => {
            if let Some(old) = &old {
                fs::rename(old, dir).map_err(Error::io("restore", dir))?;
            }
            Err(Error::io("rename into place", dir)(error))
        }
    }
}
