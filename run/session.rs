//! A run under way: its directory, and whoever watches.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Metrics, Observer, RunDirectory};
use crate::config::{
    CheckpointConfig, Config, LogConfig, PpoConfig, RewardModelConfig, SftConfig, to_toml,
};

/// How a run is started, beside its configuration.
pub struct Launch<'a> {
    /// Delete an earlier run in the same folder.
    pub clean: bool,
    /// Who watches.
    pub observer: &'a mut dyn Observer,
}

/// What every run's configuration says about its directory.
pub(super) trait RunConfig: Config {
    fn output_dir(&self) -> &Path;
    fn log(&self) -> LogConfig;
    fn checkpoint(&self) -> CheckpointConfig;
}

macro_rules! run_config {
    ($($config:ty),+) => {$(
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
        }
    )+};
}
run_config!(SftConfig, RewardModelConfig, PpoConfig);

/// A run's directory and observer.
pub(super) struct Session<'a> {
    pub(super) directory: RunDirectory,
    pub(super) observer: &'a mut dyn Observer,
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
        let directory = RunDirectory::create(config.output_dir(), &to_toml(config), launch.clean)?;
        launch.observer.start(stage, total);
        let (log, checkpoint) = (config.log(), config.checkpoint());
        Ok(Self { directory, observer: launch.observer, log, checkpoint, total })
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
        let path = self.directory.checkpoint(step, write)?;
        self.directory.prune(self.checkpoint.keep)?;
        Ok(path)
    }
}
