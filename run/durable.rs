//! Files and folders that outlive a crash of the machine.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// Makes a folder and all that is in it durable.
///
/// # Errors
/// When something in it cannot be opened or synced.
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
///
/// # Errors
/// When it cannot be opened or synced.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file that is there whole or as it was before, whatever happens meanwhile.
///
/// # Errors
/// When it, or the file beside it that takes its place, cannot be written.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().unwrap_or(Path::new("."));
    let unfinished = folder.join(format!(".{name}.unfinished"));
    let written = fs::write(&unfinished, content)
        .and_then(|()| File::open(&unfinished)?.sync_all())
        .and_then(|()| fs::rename(&unfinished, path));
    if written.is_err() {
        // What is half there is of no use; the first error is the one to tell.
        fs::remove_file(&unfinished).ok();
    }
    written?;
    sync_folder(folder)
}

/// Deletes a folder, if it is there.
///
/// # Errors
/// When it is there and stays.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_replaced_is_as_it_was_with_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("LATEST");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        // A folder cannot be replaced by a file.
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(replace_file(&taken, b"three").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
