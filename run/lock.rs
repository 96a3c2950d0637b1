//! Who has a run directory: one process at a time.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::DirectoryError;

/// The file in a run directory whose lock is the directory's.
pub(super) const LOCK: &str = ".lock";

/// How long to wait for a process that is on its way out.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to look.
const PAUSE: Duration = Duration::from_millis(20);

/// A run directory to oneself, for as long as this lives. The kernel takes the lock back when its process ends, however
/// that comes about.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of a folder that exists.
    ///
    /// # Errors
    /// Names the process that has it, and since when; or the file, where it cannot be written.
    pub(super) fn take(folder: &Path) -> Result<Self, DirectoryError> {
        let path = folder.join(LOCK);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(DirectoryError::writing(&path))?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < PATIENCE => {
                    thread::sleep(PAUSE)
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(DirectoryError::InUse {
                        path: folder.to_owned(),
                        by: holder(&mut file),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(DirectoryError::writing(&path)(error));
                }
            }
        }
        sign(&mut file).map_err(DirectoryError::writing(&path))?;
        Ok(Self { _file: file })
    }
}

/// Writes who has the lock, for whoever does not get it.
fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{} {}", std::process::id(), unix_seconds())
}

/// Says who has the lock, by the file that they signed.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // A signature is two numbers: more is not read.
    file.take(64).read_to_string(&mut text).ok();
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(process)), Some(Ok(since))) => {
            format!("process {process} for {} s", unix_seconds().saturating_sub(since))
        }
        _ => "another process".to_owned(),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_at_a_time_and_says_who() {
        let folder = tempfile::tempdir().unwrap();
        let mine = RunLock::take(folder.path()).unwrap();
        let said = RunLock::take(folder.path()).unwrap_err().to_string();
        let owner = format!("is in use by process {} for ", std::process::id());
        assert!(said.contains(&owner) && said.ends_with(" s"), "{said}");
        drop(mine);
        RunLock::take(folder.path()).unwrap();
    }
}
