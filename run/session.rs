//! A run under way: its directory, and whoever watches.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use super::{
    Launch, Metrics, Observer, RunDirectory, Signal, Stop, Stopped,
    checkpoint::Retention,
    invariants::Broken,
    opening::Opening,
    page::KeptReport,
    plan::{self, Checked},
    record::{EntryKind, EventFile, Journal, Lane, Trace},
    stopwatch::Stopwatch,
};
use crate::config::{
    Best, CheckpointConfig, Config, DistillConfig, DpoConfig, KtoConfig, LogConfig, PpoConfig,
    RegressionConfig, RewardModelConfig, SftConfig, SteerLm2Config, StopConfig, to_toml,
};

/// What every run's configuration says about its directory.
pub(super) trait RunConfig: Config {
    fn output_dir(&self) -> &Path;
    fn log(&self) -> LogConfig;
    fn checkpoint(&self) -> CheckpointConfig;
    fn stop(&self) -> StopConfig;

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
                self.checkpoint.clone()
            }

            fn stop(&self) -> StopConfig {
                self.stop
            }

            fn inputs(&self) -> Vec<&Path> {
                let further: fn(&Self) -> Vec<&Path> = $further;
                let data = self.data.train.iter().chain(&self.data.eval).map(PathBuf::as_path);
                let adapter = self.lora.adapter.as_deref();
                let models = further(self).into_iter().chain([self.model.path.as_path()]);
                models.chain(adapter).chain(data).collect()
            }
        }
    )+};
}
run_config!(
    SftConfig: |_| Vec::new(),
    SteerLm2Config: |_| Vec::new(),
    RewardModelConfig: |_| Vec::new(),
    RegressionConfig: |_| Vec::new(),
    DpoConfig: |config| config.model.reference.as_deref().into_iter().collect(),
    DistillConfig: |config| config.model.teacher.as_deref().into_iter().collect(),
    KtoConfig: |config| config.model.reference.as_deref().into_iter().collect(),
    PpoConfig: read_beside
);

/// Returns what PPO reads beside the policy and its prompts.
fn read_beside(config: &PpoConfig) -> Vec<&Path> {
    config.reward.inputs().chain(config.model.reference.as_deref()).collect()
}

/// A run's directory and observer.
pub(super) struct Session<'a> {
    pub(super) directory: RunDirectory,
    pub(super) trace: Trace,
    observer: &'a mut dyn Observer,
    journal: Journal,
    /// Begun with the first step that is written down.
    events: Option<EventFile>,
    page: KeptReport,
    /// The step under way, from 1.
    step: u64,
    /// Bytes of the largest resident set, as the plan has it.
    predicted: Option<u64>,
    stop: Stop,
    log: LogConfig,
    checkpoint: CheckpointConfig,
    total: u64,
    /// The metric that says which checkpoints are best, at the last step that was reported.
    score: Option<f64>,
    /// The step of the latest checkpoint, and where it is.
    saved: Option<(u64, PathBuf)>,
}

impl<'a> Session<'a> {
    /// Makes the run directory, or goes on in it, and announces a stage of so many steps. Everything that can be refused
    /// has been by now.
    ///
    /// # Errors
    /// When the directory is in use or cannot be written, or the run was asked to stop before it began.
    pub(super) fn start(
        launch: Launch<'a>,
        config: &impl RunConfig,
        opening: Opening,
        (stage, total): (&str, u64),
    ) -> Result<Self> {
        if let Some(by) = launch.stop.requested() {
            bail!(Stopped { by, place: format!("before {stage} began; nothing was written") });
        }
        let (done, saved) = (opening.done(), opening.checkpoint());
        let (path, earlier) = (config.output_dir(), opening.earlier);
        let mut directory = RunDirectory::create(path, &to_toml(config), earlier, opening.lock)?;
        if earlier.resumes() {
            directory.rewind(done)?;
        }
        launch.stop.allow(Duration::from_secs_f64(config.stop().deadline_seconds));
        launch.observer.start(stage, total);
        let mut journal = Journal::open(directory.path())?;
        journal.write(
            done,
            (EntryKind::Note, Some("start")),
            &format!("{stage}: {total} steps"),
        )?;
        let mut session = Self {
            trace: match config.log().trace {
                true => Trace::open(directory.path())?,
                false => Trace::off(),
            },
            events: None,
            journal,
            page: KeptReport::of(directory.path()),
            directory,
            observer: launch.observer,
            step: done,
            predicted: None,
            stop: launch.stop,
            log: config.log(),
            checkpoint: config.checkpoint(),
            total,
            score: None,
            saved,
        };
        if done > 0 {
            let text = format!("resumed after step {done} of {total}");
            session.journal(EntryKind::Resume, None, &text)?;
        }
        Ok(session)
    }

    /// Writes down what the run is to take in memory: `plan.json`, and a warning where it may be too much.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn planned(&mut self, checked: &Checked) -> Result<()> {
        self.predicted = Some(checked.plan.peak());
        self.directory.write("plan.json", &serde_json::to_string_pretty(&checked.plan)?)?;
        checked.warning.iter().try_for_each(|line| self.journal(EntryKind::Warning, None, line))
    }

    /// Begins a step (from 1): what is said and measured from now on belongs to it.
    pub(super) fn begin(&mut self, step: u64) -> Stopwatch {
        self.step = step;
        Stopwatch::start(self.trace.clone(), step)
    }

    /// Says something in one line, to whoever watches and in the journal. The journal alone takes in checkpoints, which
    /// come regularly, and what ends a run, which the caller hears of.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn journal(
        &mut self,
        kind: EntryKind,
        name: Option<&str>,
        text: &str,
    ) -> Result<()> {
        if !matches!(kind, EntryKind::Checkpoint | EntryKind::Stop | EntryKind::Error) {
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
            Ok(_) => {
                self.observer.finish();
                if self.step == self.total {
                    let text = format!("all {} steps are done", self.total);
                    self.journal.write(self.step, (EntryKind::Stop, Some("finished")), &text)?;
                }
            }
            Err(error) => {
                let kind = if error.is::<Stopped>() { EntryKind::Stop } else { EntryKind::Error };
                let name = error.downcast_ref().map(Broken::name);
                // A journal that cannot be written is no reason to hide the error.
                self.journal(kind, name, &format!("{error:#}")).ok();
            }
        }
        outcome
    }

    /// Says whether something that is done every so many steps, and at the end, is due after step `step` (from 1).
    pub(super) fn is_due(&self, step: u64, every: u64) -> bool {
        step == self.total || (every > 0 && step.is_multiple_of(every))
    }

    /// Says whether a checkpoint follows a step: it is due, or the run was asked to stop.
    pub(super) fn saves(&self, step: u64) -> bool {
        self.is_due(step, self.checkpoint.every) || self.is_to_stop()
    }

    /// Says whether the run was asked to stop.
    pub(super) fn is_to_stop(&self) -> bool {
        self.stop.requested().is_some()
    }

    /// Says whether the latest checkpoint is that of a step.
    pub(super) fn has_saved(&self, step: u64) -> bool {
        self.saved.as_ref().is_some_and(|(saved, _)| *saved == step)
    }

    /// Says whether checkpoints are chosen by a metric, which each of them then needs.
    pub(super) fn keeps_best(&self) -> bool {
        self.checkpoint.keep_best > 0
    }

    /// Says whether checkpoints are chosen by a metric whose name begins like this.
    pub(super) fn is_chosen_by(&self, prefix: &str) -> bool {
        let metric = self.checkpoint.metric.as_deref();
        self.keeps_best() && metric.is_some_and(|metric| metric.starts_with(prefix))
    }

    /// Says whether the run ends early after a step whose checkpoint is written: none of the latest checkpoints is better
    /// than the best before them. Whoever watches hears of it.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub(super) fn is_exhausted(&mut self, step: u64) -> Result<bool> {
        let CheckpointConfig { every, patience, .. } = self.checkpoint;
        if patience == 0 || !self.has_saved(step) {
            return Ok(false);
        }
        // Told from what is on the disk, so that a run that was resumed ends where the whole one does.
        let Some((best, path)) = self.directory.checkpoints().best(&self.retention()) else {
            return Ok(false);
        };
        let exhausted = step - best >= every.saturating_mul(patience);
        if exhausted {
            let metric = self.checkpoint.metric.as_deref().unwrap_or_default();
            let text = format!(
                "ended early after step {step} of {}: {metric} is no better than after step {best} (checkpoint.patience \
                 = {patience}); the best is {}",
                self.total,
                path.display()
            );
            self.observer.note(&text);
            self.journal.write(step, (EntryKind::Stop, Some("patience")), &text)?;
        }
        Ok(exhausted)
    }

    fn retention(&self) -> Retention {
        Retention {
            keep: self.checkpoint.keep,
            keep_best: self.checkpoint.keep_best,
            larger_is_better: self.checkpoint.mode != Some(Best::Min),
        }
    }

    /// Shows a step's metrics, and writes them down where they are due.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn report(&mut self, step: u64, metrics: &Metrics) -> Result<()> {
        let mut metrics = metrics.clone();
        let memory = [("mem/predicted", self.predicted), ("mem/peak", plan::peak_resident())];
        for (name, bytes) in memory {
            bytes.into_iter().for_each(|bytes| metrics.set(name, bytes as f64));
        }
        if self.is_due(step, self.log.every) {
            self.directory.record(step, &metrics)?;
            if self.log.tensorboard {
                let run = self.directory.path();
                let events = match self.events.take() {
                    Some(events) => events,
                    None => EventFile::create(run, step)?,
                };
                self.events.insert(events).write(step, &metrics)?;
            }
        }
        self.score = self.checkpoint.metric.as_deref().and_then(|name| metrics.get(name));
        self.observer.step(step, &metrics);
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
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let began = Instant::now();
        self.directory.sync()?;
        let checkpoints = self.directory.checkpoints();
        let path = checkpoints.write((step, self.score), fill)?;
        checkpoints.prune(&self.retention())?;
        self.saved = Some((step, path.clone()));
        let took = began.elapsed();
        self.trace.span((Lane::Checkpoint, "checkpoint"), (began, began + took), step)?;
        let text = format!("{} written in {:.1} s", path.display(), took.as_secs_f64());
        self.journal(EntryKind::Checkpoint, None, &text)?;
        if let Err(error) = self.page.write() {
            self.journal(EntryKind::Warning, None, &format!("no report: {:#}", anyhow!(error)))?;
        }
        Ok(path)
    }

    /// Ends the run after a step if it was asked to stop and the step's checkpoint is written. After the last step there
    /// is nothing to stop.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(super) fn stop_at(&self, step: u64) -> Result<()> {
        let saved = self.saved.as_ref().filter(|(saved, _)| *saved == step && step < self.total);
        match (self.stop.requested(), saved) {
            (Some(by), Some((_, path))) => Err(self.stopped(by, step, path).into()),
            _ => Ok(()),
        }
    }

    fn stopped(&self, by: Signal, step: u64, checkpoint: &Path) -> Stopped {
        let (total, checkpoint) = (self.total, checkpoint.display());
        let place = format!("after step {step} of {total}; --resume goes on from {checkpoint}");
        Stopped { by, place }
    }
}
