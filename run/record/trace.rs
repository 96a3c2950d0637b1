//! When what was at work: `trace.json`, for Perfetto and Chrome, written span by span.
//!
//! It is the array form of Chrome's trace event format, which allows that the closing bracket is missing. Times are
//! microseconds since 1970, so that a resumed run simply appends.

use std::{
    borrow::Cow,
    path::Path,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde_json::json;

use super::lines::LineFile;
use crate::run::DirectoryError;

const FILE: &str = "trace.json";

/// A row of the picture: what a span keeps busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// The engine samples.
    Generate = 1,
    /// Rewards, log-probs, values and advantages are computed.
    Score,
    /// The optimizer works.
    Train,
    /// The engine gets new weights, and is compared with the trainer.
    Refit,
    /// The trainer waits for rollouts.
    Wait,
    /// A checkpoint is written.
    Checkpoint,
}

impl Lane {
    /// Every lane, from the top.
    pub const ALL: [Self; 6] =
        [Self::Generate, Self::Score, Self::Train, Self::Refit, Self::Wait, Self::Checkpoint];

    /// Returns its number in the file (`tid`).
    pub fn number(self) -> u64 {
        self as u64
    }

    /// Returns its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Score => "score",
            Self::Train => "train",
            Self::Refit => "refit",
            Self::Wait => "wait",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What it kept busy.
    pub lane: Lane,
    /// What it was.
    pub name: Cow<'static, str>,
    /// When it began (microseconds since 1970).
    pub start: u64,
    /// When it ended (microseconds since 1970).
    pub end: u64,
    /// The iteration (or optimizer step) that was under way, from 1.
    pub iteration: u64,
}

/// An open `trace.json`. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Open>>);

#[derive(Debug)]
struct Open {
    /// `None` where nothing is to be written.
    file: Option<LineFile>,
    /// An instant, and what time it was then (microseconds since 1970).
    epoch: (Instant, u64),
}

impl Trace {
    /// Opens the trace of a run directory, or begins it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(run: &Path) -> Result<Self, DirectoryError> {
        let mut file = LineFile::open(run.join(FILE))?;
        if file.is_empty() {
            file.write("[".into())?;
        }
        for lane in Lane::ALL {
            let named = json!({
                "name": "thread_name", "ph": "M", "pid": 1, "tid": lane.number(), "args": { "name": lane.name() },
            });
            file.write(format!("{named},"))?;
        }
        Ok(Self::over(Some(file)))
    }

    /// Traces nothing into a file.
    pub fn off() -> Self {
        Self::over(None)
    }

    fn over(file: Option<LineFile>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Mutex::new(Open { file, epoch: (Instant::now(), now.as_micros() as u64) })))
    }

    /// Writes down what kept a lane busy from `started` to `ended`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn span(
        &self,
        (lane, name): (Lane, impl Into<Cow<'static, str>>),
        (started, ended): (Instant, Instant),
        iteration: u64,
    ) -> Result<(), DirectoryError> {
        let mut open = self.0.lock();
        let (start, end) = (open.microseconds(started), open.microseconds(ended));
        open.write(&Span { lane, name: name.into(), start, end, iteration })
    }
}

impl Open {
    fn microseconds(&self, at: Instant) -> u64 {
        let (instant, time) = self.epoch;
        match at.checked_duration_since(instant) {
            Some(later) => time + later.as_micros() as u64,
            None => time.saturating_sub((instant - at).as_micros() as u64),
        }
    }

    fn write(&mut self, span: &Span) -> Result<(), DirectoryError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let event = json!({
            "name": span.name, "cat": span.lane.name(), "ph": "X",
            "ts": span.start, "dur": span.end - span.start,
            "pid": 1, "tid": span.lane.number(), "args": { "iteration": span.iteration },
        });
        file.write(format!("{event},"))
    }
}
