//! A run under way: its directory, and whoever watches.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, ensure};

use super::{
    Earlier, Metrics, Observer, RunDirectory,
    record::{EntryKind, EventFile, Journal, Lane, Trace},
    stopwatch::Stopwatch,
};
use crate::config::{
    CheckpointConfig, Config, LogConfig, PpoConfig, RewardConfig, RewardModelConfig, SftConfig,
    to_toml,
};

/// How a run is started, beside its configuration.
pub struct Launch<'a> {
    /// What to do about an earlier run in the same folder.
    pub earlier: Earlier,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
}

/// What every run's configuration says about its directory.
pub(super) trait RunConfig: Config {
    fn output_dir(&self) -> &Path;
    fn log(&self) -> LogConfig;
    fn checkpoint(&self) -> CheckpointConfig;

    /// Returns every file and folder that the run reads.
    fn inputs(&self) -> Vec<&Path>;
}

macro_rules! run_config {
    ($($config:ty: $further:expr),+) => {$(
        impl RunConfig for $config {
            fn output_dir(&self) -> &Path {
                &self.output_dir
            }

            fn log(&self) -> LogConfig {
                self.log
            }

            fn checkpoint(&self) -> CheckpointConfig {
                self.checkpoint
            }

            fn inputs(&self) -> Vec<&Path> {
                let further: fn(&Self) -> Vec<&Path> = $further;
                let data = self.data.train.iter().chain(&self.data.eval).map(PathBuf::as_path);
                further(self).into_iter().chain([self.model.path.as_path()]).chain(data).collect()
            }
        }
    )+};
}
run_config!(SftConfig: |_| Vec::new(), RewardModelConfig: |_| Vec::new(), PpoConfig: models_beside);

/// Returns the models that PPO reads beside the policy.
fn models_beside(config: &PpoConfig) -> Vec<&Path> {
    let reward = match &config.reward {
        RewardConfig::Model { path, .. } => Some(path.as_path()),
        RewardConfig::ExactMatch { .. } | RewardConfig::PositionMatch { .. } => None,
    };
    reward.into_iter().chain(config.model.reference.as_deref()).collect()
}

/// Checks that a run directory can be made where the configuration wants it, and that making it deletes nothing which
/// the run is to read.
///
/// # Errors
/// When the folder is in use, or holds an input; it is named.
pub(super) fn check(config: &impl RunConfig, earlier: Earlier) -> Result<()> {
    let output_dir = config.output_dir();
    RunDirectory::check(output_dir, earlier)?;
    if earlier != Earlier::Delete {
        return Ok(());
    }
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

/// A run's directory and observer.
pub(super) struct Session<'a> {
    pub(super) directory: RunDirectory,
    pub(super) trace: Trace,
    observer: &'a mut dyn Observer,
    journal: Journal,
    /// Begun with the first step that is written down.
    events: Option<EventFile>,
    /// The step under way, from 1.
    step: u64,
    log: LogConfig,
    checkpoint: CheckpointConfig,
    total: u64,
}

impl<'a> Session<'a> {
    /// Makes the run directory and announces a stage of so many steps. Everything that can be refused has been by now.
    ///
    /// # Errors
    /// When the directory is in use or cannot be written.
    pub(super) fn start(
        launch: Launch<'a>,
        config: &impl RunConfig,
        (stage, total): (&str, u64),
    ) -> Result<Self> {
        let directory =
            RunDirectory::create(config.output_dir(), &to_toml(config), launch.earlier)?;
        launch.observer.start(stage, total);
        Ok(Self {
            trace: match config.log().trace {
                true => Trace::open(directory.path())?,
                false => Trace::off(),
            },
            events: None,
            journal: Journal::open(directory.path())?,
            directory,
            observer: launch.observer,
            step: 0,
            log: config.log(),
            checkpoint: config.checkpoint(),
            total,
        })
    }

    /// Begins a step (from 1): what is said and measured from now on belongs to it.
    pub(super) fn begin(&mut self, step: u64) -> Stopwatch {
        self.step = step;
        Stopwatch::start(self.trace.clone(), step)
    }

    /// Says something in one line, to whoever watches and in the journal. The journal alone takes in checkpoints, which
    /// come regularly, and errors, which the caller hears of.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn journal(
        &mut self,
        kind: EntryKind,
        name: Option<&str>,
        text: &str,
    ) -> Result<()> {
        if !matches!(kind, EntryKind::Checkpoint | EntryKind::Error) {
            self.observer.note(text);
        }
        Ok(self.journal.write(self.step, (kind, name), text)?)
    }

    /// Says something that is good to know.
    ///
    /// # Errors
    /// As [`Session::journal`].
    pub(super) fn note(&mut self, text: &str) -> Result<()> {
        self.journal(EntryKind::Note, None, text)
    }

    /// Says each of these lines as [`Session::note`] does.
    ///
    /// # Errors
    /// As [`Session::journal`].
    pub(super) fn notes(&mut self, lines: &[String]) -> Result<()> {
        lines.iter().try_for_each(|line| self.note(line))
    }

    /// Ends the run: whoever watches hears of it, and the journal what went wrong.
    pub(super) fn end<T>(&mut self, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Ok(_) => self.observer.finish(),
            // A journal that cannot be written is no reason to hide the error.
            Err(error) => drop(self.journal(EntryKind::Error, None, &format!("{error:#}"))),
        }
        outcome
    }

    /// Says whether something that is done every so many steps, and at the end, is due after step `step` (from 1).
    pub(super) fn is_due(&self, step: u64, every: u64) -> bool {
        step == self.total || (every > 0 && step.is_multiple_of(every))
    }

    /// Says whether a checkpoint follows a step.
    pub(super) fn saves(&self, step: u64) -> bool {
        self.is_due(step, self.checkpoint.every)
    }

    /// Shows a step's metrics, and writes them down where they are due.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn report(&mut self, step: u64, metrics: &Metrics) -> Result<()> {
        if self.is_due(step, self.log.every) {
            self.directory.record(step, metrics)?;
            if self.log.tensorboard {
                let run = self.directory.path();
                let events = match self.events.take() {
                    Some(events) => events,
                    None => EventFile::create(run, step)?,
                };
                self.events.insert(events).write(step, metrics)?;
            }
        }
        self.observer.step(step, metrics);
        Ok(())
    }

    /// Writes down some of an iteration's completions, where they are due.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn samples<T: serde::Serialize>(
        &self,
        iteration: u64,
        rows: impl FnOnce(usize) -> Result<Vec<T>>,
    ) -> Result<()> {
        if self.log.samples > 0 && self.is_due(iteration, self.log.every) {
            self.directory.samples(iteration, &rows(self.log.samples)?)?;
        }
        Ok(())
    }

    /// Writes a checkpoint, deletes those that are too many, and returns where it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn save(
        &mut self,
        step: u64,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let began = Instant::now();
        let path = self.directory.checkpoint(step, write)?;
        self.directory.prune(self.checkpoint.keep)?;
        let took = began.elapsed();
        self.trace.span((Lane::Checkpoint, "checkpoint"), (began, began + took), step)?;
        let text = format!("{} written in {:.1} s", path.display(), took.as_secs_f64());
        self.journal(EntryKind::Checkpoint, None, &text)?;
        Ok(path)
    }
}
