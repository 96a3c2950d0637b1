//! The beginning of a run: its directory is taken, and what an earlier run left there is looked at.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::de::DeserializeOwned;

use super::{
    Earlier, Observer, RunDirectory, RunLock,
    checkpoint::{self, Checkpoint, Checkpoints, Resumable},
    session::RunConfig,
};
use crate::{config, rollout::QueueSnapshot};

/// What is known before anything is loaded or written.
pub(super) struct Opening {
    pub(super) earlier: Earlier,
    /// Of a run directory that is there already.
    pub(super) lock: Option<RunLock>,
    /// What the run goes on from; none if it begins.
    from: Option<Checkpoint>,
}

impl Opening {
    /// Checks that a run directory can be made, or taken over, where the configuration wants it, and that making it
    /// deletes nothing which the run is to read. Takes the directory's lock if it is there.
    ///
    /// # Errors
    /// When the folder is in use or holds an input, the earlier run was of another configuration, or the checkpoint to
    /// go on from is missing or damaged.
    pub(super) fn new(config: &impl RunConfig, earlier: Earlier) -> Result<Self> {
        let folder = config.output_dir();
        RunDirectory::check(folder, earlier)?;
        let lock = RunDirectory::lock(folder)?;
        if earlier == Earlier::Delete {
            check_inputs(config)?;
        }
        let step = match earlier {
            Earlier::Refuse | Earlier::Delete => return Ok(Self { earlier, lock, from: None }),
            Earlier::Resume => None,
            Earlier::ResumeFrom(step) => Some(step),
        };
        if let Some((path, began)) = RunDirectory::config(folder)? {
            let change = config::forbidden_change(&path.display().to_string(), began, config)?;
            change.map_or(Ok(()), Err)?;
        }
        Ok(Self { earlier, lock, from: Checkpoints::of(folder).open(step)? })
    }

    /// Returns the steps that an earlier run has done.
    pub(super) fn done(&self) -> u64 {
        self.from.as_ref().map_or(0, Checkpoint::step)
    }

    /// Puts the earlier run's state into a trainer of the same configuration, if there was one.
    ///
    /// # Errors
    /// When the state is of another trainer.
    pub(super) fn restore(&self, trainer: &mut impl Resumable) -> Result<()> {
        self.from.as_ref().map_or(Ok(()), |from| checkpoint::restore(from, trainer))
    }

    /// Returns the queue as the earlier run left it; one that nobody has used if there was none.
    ///
    /// # Errors
    /// When the checkpoint has no such queue.
    pub(super) fn queue<T: DeserializeOwned>(&self) -> Result<QueueSnapshot<T>> {
        self.from.as_ref().map_or_else(|| Ok(QueueSnapshot::default()), checkpoint::restore_queue)
    }

    /// Says whether the earlier run has done all steps, so that there is nothing to do; the observer hears of it.
    pub(super) fn is_over(&self, total: u64, observer: &mut dyn Observer) -> bool {
        let Some(from) = self.from.as_ref().filter(|from| from.step() >= total) else {
            return false;
        };
        let (path, step) = (from.path().display(), from.step());
        observer.note(&format!("nothing to do: the run ended with step {step} of {total}, {path}"));
        true
    }

    /// Returns the step of the checkpoint that the run goes on from, and where it is.
    pub(super) fn checkpoint(&self) -> Option<(u64, PathBuf)> {
        self.from.as_ref().map(|from| (from.step(), from.path().to_owned()))
    }

    /// Returns where a model lies in the checkpoint that the run goes on from.
    pub(super) fn model(&self, name: &str) -> PathBuf {
        self.from.as_ref().map_or_else(PathBuf::new, |from| from.path().join(name))
    }
}

/// Checks that no input lies in the output directory, which is about to be deleted.
fn check_inputs(config: &impl RunConfig) -> Result<()> {
    let output_dir = config.output_dir();
    let Ok(folder) = output_dir.canonicalize() else { return Ok(()) }; // nothing there to delete
    for input in config.inputs() {
        // An input that is not there is refused where it is opened.
        let inside = input.canonicalize().is_ok_and(|input| input.starts_with(&folder));
        ensure!(
            !inside,
            "{} lies in output_dir {}, which --clean deletes; choose another output directory",
            input.display(),
            output_dir.display()
        );
    }
    Ok(())
}
