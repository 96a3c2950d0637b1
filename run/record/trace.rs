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
use serde::Deserialize;
use serde_json::json;

use super::{
    Ratios,
    lines::{LineFile, Lines},
};
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
    /// Spans since the stretch began of which ratios are to be computed.
    recent: Vec<Span>,
    /// When that was (microseconds since 1970).
    since: u64,
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
        let since = now.as_micros() as u64;
        let epoch = (Instant::now(), since);
        Self(Arc::new(Mutex::new(Open { file, epoch, recent: Vec::new(), since })))
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
        let span = Span { lane, name: name.into(), start, end, iteration };
        open.write(&span)?;
        open.recent.push(span);
        Ok(())
    }

    /// Returns how busy engine and trainer were since this was last asked. `None` where nobody generated or waited, as
    /// where there is no engine.
    pub fn ratios(&self) -> Option<Ratios> {
        self.ratios_at(Instant::now())
    }

    fn ratios_at(&self, now: Instant) -> Option<Ratios> {
        let mut open = self.0.lock();
        let now = open.microseconds(now);
        let stretch = std::mem::replace(&mut open.since, now)..now;
        let spans = std::mem::take(&mut open.recent);
        let shared = |span: &Span| matches!(span.lane, Lane::Generate | Lane::Wait);
        spans.iter().any(shared).then(|| Ratios::of(&spans, stretch)).flatten()
    }

    /// Reads the trace of a run directory: the spans of each time the run was started, from the first. Empty where it has
    /// none; what others may have put there is passed over.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(run: &Path) -> Result<Vec<Vec<Span>>, DirectoryError> {
        let path = run.join(FILE);
        let mut starts = Vec::new();
        if !path.exists() {
            return Ok(starts);
        }
        for line in Lines::open(path)? {
            let line = line?;
            let Ok(event) = serde_json::from_str::<Event>(line.trim_end_matches(',')) else {
                continue;
            };
            if let Some(span) = event.span() {
                // What stands before the first start is nobody's.
                if let Some(spans) = starts.last_mut() {
                    spans.push(span);
                }
            } else if event.names(Lane::ALL[0]) {
                starts.push(Vec::new());
            }
        }
        Ok(starts)
    }
}

/// An event of the file, as far as it is read back.
#[derive(Debug, Deserialize)]
struct Event {
    name: String,
    ph: String,
    tid: u64,
    #[serde(default)]
    ts: u64,
    #[serde(default)]
    dur: u64,
    #[serde(default)]
    args: Arguments,
}

#[derive(Debug, Default, Deserialize)]
struct Arguments {
    #[serde(default)]
    iteration: u64,
}

impl Event {
    fn span(&self) -> Option<Span> {
        let lane = Lane::ALL.into_iter().find(|lane| lane.number() == self.tid)?;
        (self.ph == "X").then(|| Span {
            lane,
            name: self.name.clone().into(),
            start: self.ts,
            end: self.ts.saturating_add(self.dur),
            iteration: self.args.iteration,
        })
    }

    /// Says whether it gives a lane its name, which happens each time a run is started.
    fn names(&self, lane: Lane) -> bool {
        self.ph == "M" && self.name == "thread_name" && self.tid == lane.number()
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
            "ts": span.start, "dur": span.end.saturating_sub(span.start),
            "pid": 1, "tid": span.lane.number(), "args": { "iteration": span.iteration },
        });
        file.write(format!("{event},"))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[test]
    fn a_trace_reads_back_span_by_span_and_start_by_start() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(Trace::read(run.path()).unwrap(), Vec::<Vec<Span>>::new());
        let trace = Trace::open(run.path()).unwrap();
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        trace.span((Lane::Wait, "gen"), (at(0), at(20)), 1).unwrap();
        trace.clone().span((Lane::Train, "update".to_owned()), (at(20), at(50)), 1).unwrap();
        // A crash in the middle of a line, and a second start.
        let path = run.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"name\":\"cut o")).unwrap();
        let trace = Trace::open(run.path()).unwrap();
        trace.span((Lane::Wait, "gen"), (at(60), at(61)), 2).unwrap();

        let starts = Trace::read(run.path()).unwrap();
        let spans = starts.iter().map(|spans| {
            let seen =
                spans.iter().map(|s| (s.lane, s.name.as_ref(), s.end - s.start, s.iteration));
            seen.collect::<Vec<_>>()
        });
        let first = vec![(Lane::Wait, "gen", 20_000, 1), (Lane::Train, "update", 30_000, 1)];
        assert_eq!(spans.collect::<Vec<_>>(), [first, vec![(Lane::Wait, "gen", 1000, 2)]]);
        assert_eq!(starts[0][0].end, starts[0][1].start);
    }

    #[test]
    fn a_finished_file_is_one_json_array() {
        let run = tempfile::tempdir().unwrap();
        let trace = Trace::open(run.path()).unwrap();
        trace.span((Lane::Refit, "a \"name\""), (Instant::now(), Instant::now()), 7).unwrap();
        let text = fs::read_to_string(run.path().join(FILE)).unwrap();
        let whole = format!("{}]", text.trim_end().trim_end_matches(','));
        let events: Vec<serde_json::Value> = serde_json::from_str(&whole).unwrap();
        assert_eq!(events.len(), Lane::ALL.len() + 1);
        assert_eq!(events[6]["args"]["iteration"], 7);
    }

    #[test]
    fn ratios_are_those_since_they_were_last_asked_for() {
        let trace = Trace::off();
        let began = trace.0.lock().epoch.0;
        let at = |s| began + Duration::from_secs(s);
        assert_eq!(trace.ratios_at(at(1)), None);
        trace.span((Lane::Train, "update"), (at(1), at(4)), 1).unwrap();
        assert_eq!(trace.ratios_at(at(4)), None);
        // A second of this wait lies before the stretch.
        trace.span((Lane::Wait, "gen"), (at(3), at(6)), 1).unwrap();
        let expected = Ratios { trainer_idle: 0.5, engine_idle: 1.0, overlap: 0.0 };
        assert_eq!(trace.ratios_at(at(8)), Some(expected));
        assert_eq!(trace.ratios_at(at(9)), None);
        trace.span((Lane::Wait, "gen"), (at(8), at(9)), 2).unwrap();
        assert_eq!(trace.ratios_at(at(9)), None, "a stretch of no time has no shares");
    }
}
