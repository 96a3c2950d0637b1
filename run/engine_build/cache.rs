//! Engines that were built before, by what decides how they come out.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A folder of engines, each in a folder named by its recipe's key.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
    /// Longest wait for another process that builds the same engine.
    patience: Duration,
}

/// The right to build an engine that is not there yet; ends on drop.
#[derive(Debug)]
pub struct Claim {
    entry: PathBuf,
    _lock: File,
}

/// What a look into the cache comes to.
#[derive(Debug)]
pub enum Looked {
    /// The engine is there.
    Hit(PathBuf),
    /// It is to be built, and nobody else builds it meanwhile.
    Miss(Claim),
}

impl Cache {
    /// Returns the user's cache: `$XDG_CACHE_HOME/rollforge/engines`, or that under `~/.cache`.
    ///
    /// # Errors
    /// When the environment names neither.
    pub fn default_folder() -> Result<PathBuf> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
        let base = base.context(
            "there is no HOME and no XDG_CACHE_HOME to keep engines in: pass --cache or --no-cache",
        )?;
        Ok(base.join("rollforge/engines"))
    }

    /// Keeps engines in a folder.
    pub fn new(folder: PathBuf, patience: Duration) -> Self {
        Self { folder, patience }
    }

    /// Looks for an engine, waiting for whoever builds it just now.
    ///
    /// # Errors
    /// When the folder cannot be written, or the other one is not done before the deadline.
    pub fn look(&self, key: &str) -> Result<Looked> {
        let entry = self.folder.join(key);
        if entry.is_dir() {
            return Ok(Looked::Hit(entry));
        }
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot write {}", self.folder.display()))?;
        let lock = self.lock(&self.folder.join(format!(".{key}.lock")))?;
        // The one we waited for may have built it.
        if entry.is_dir() {
            return Ok(Looked::Hit(entry));
        }
        Ok(Looked::Miss(Claim { entry, _lock: lock }))
    }

    /// Lists the keys of all engines.
    pub fn keys(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter(|entry| entry.path().is_dir());
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        let mut keys: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        keys.sort();
        keys
    }

    fn lock(&self, path: &Path) -> Result<File> {
        let started = Instant::now();
        let failed = || format!("cannot lock {}", path.display());
        let file = File::options().create(true).append(true).open(path).with_context(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
                Err(TryLockError::WouldBlock) if started.elapsed() >= self.patience => bail!(
                    "engine build waited {} s for another process that builds the same engine and holds {}",
                    self.patience.as_secs(),
                    path.display()
                ),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Claim {
    /// Puts a finished engine directory into the cache, by links where the file system has them.
    ///
    /// # Errors
    /// When it cannot be written; then the cache is as it was.
    pub fn keep(self, engine: &Path) -> Result<()> {
        let failed = || format!("cannot write {}", self.entry.display());
        let parent = self.entry.parent().unwrap_or(Path::new("."));
        let staged =
            tempfile::Builder::new().prefix(".").tempdir_in(parent).with_context(failed)?;
        link_files(engine, staged.path())?;
        fs::rename(staged.keep(), &self.entry).with_context(failed)
    }
}

/// Gives every file of a folder a second name in another one, or a copy where there are no links.
///
/// # Errors
/// When one cannot be read or written.
pub(super) fn link_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", from.display()))?;
        let name = to.join(entry.file_name());
        if fs::hard_link(entry.path(), &name).is_err() {
            let copied = fs::copy(entry.path(), &name);
            copied.with_context(|| format!("cannot write {}", name.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(folder: &Path) -> PathBuf {
        let engine = folder.join("engine");
        fs::create_dir(&engine).unwrap();
        fs::write(engine.join("rank0.engine"), "plan").unwrap();
        engine
    }

    #[test]
    fn an_engine_that_was_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("cache"), Duration::ZERO);
        let Looked::Miss(claim) = cache.look("a").unwrap() else { panic!("it is empty") };
        claim.keep(&engine(folder.path())).unwrap();
        let Looked::Hit(entry) = cache.look("a").unwrap() else { panic!("it was kept") };
        assert_eq!(fs::read_to_string(entry.join("rank0.engine")).unwrap(), "plan");
        assert!(matches!(cache.look("b").unwrap(), Looked::Miss(_)));
        assert_eq!(cache.keys(), ["a"]);
    }

    #[test]
    fn one_builds_and_the_others_wait_until_their_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("cache"), Duration::ZERO);
        let claim = cache.look("a").unwrap();
        let error = cache.look("a").unwrap_err().to_string();
        assert!(error.contains("waited 0 s for another process that builds the same"), "{error}");
        assert!(matches!(cache.look("b").unwrap(), Looked::Miss(_)));
        drop(claim);
        assert!(matches!(cache.look("a").unwrap(), Looked::Miss(_)));
    }

    #[test]
    fn whoever_waited_takes_what_the_other_built() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("cache"), Duration::from_secs(60));
        let Looked::Miss(claim) = cache.look("a").unwrap() else { panic!("it is empty") };
        let waiting = cache.clone();
        let waiter = std::thread::spawn(move || waiting.look("a").unwrap());
        claim.keep(&engine(folder.path())).unwrap();
        assert!(matches!(waiter.join().unwrap(), Looked::Hit(_)));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = Cache::new(file.path().join("cache"), Duration::ZERO);
        let error = cache.look("a").unwrap_err().to_string();
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        assert!(cache.keys().is_empty());
    }
}
