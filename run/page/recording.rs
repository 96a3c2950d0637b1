//! A run directory as its readers see it: what it holds, and what it holds more than the last time.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    curves::{Curves, Row},
    invariants::Invariants,
    journal::{Entry, Journal},
    overview::{Head, Overview},
    samples::{Iteration, Pair, Samples},
    tail::{Fresh, Tail},
    timeline::{Span, Timeline},
    watched::{look, seconds},
};

/// How much of the trace's end is read. The file grows without bound.
const TRACE_WINDOW: u64 = 2 << 20;
/// Who lacks more lines than this reads everything again.
const MOST_NEWS: usize = 200;

/// The files of a run directory.
#[derive(Debug)]
pub(super) struct Recording {
    folder: PathBuf,
    version: u64,
    metrics: Tail,
    journal_file: Tail,
    trace: Tail,
    overview: Overview,
    curves: Curves,
    invariants: Invariants,
    journal: Journal,
    timeline: Timeline,
    samples: Samples,
}

/// Everything that the page shows.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot<'a> {
    version: u64,
    head: Head,
    curves: &'a Curves,
    invariants: &'a Invariants,
    policies: BTreeMap<&'a str, &'a str>,
    entries: Vec<&'a Entry>,
    timeline: &'a Timeline,
    iterations: Vec<Iteration>,
    pairs: Vec<Pair>,
    config: Option<&'a str>,
    plan: Option<Value>,
}

/// What a recording has more than the version before. A version that does not follow the last one stands for more than can
/// be told: read the snapshot again.
#[derive(Debug, Serialize)]
pub(super) struct Delta {
    pub(super) version: u64,
    pub(super) head: Head,
    #[serde(flatten)]
    pub(super) news: News,
}

/// Lines that are new.
#[derive(Debug, Default, Serialize)]
pub(super) struct News {
    pub(super) rows: Vec<Row>,
    pub(super) entries: Vec<Entry>,
    spans: Vec<Span>,
    iterations: Vec<Iteration>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invariants: Option<Value>,
}

impl Recording {
    /// Watches a folder, which need not be there yet.
    pub(super) fn new(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self {
            folder: folder.to_owned(),
            version: 0,
            metrics: Tail::new(file("metrics.jsonl")),
            journal_file: Tail::new(file("journal.jsonl")),
            trace: Tail::of_last(file("trace.json"), TRACE_WINDOW),
            overview: Overview::new(folder),
            curves: Curves::default(),
            invariants: Invariants::default(),
            journal: Journal::default(),
            timeline: Timeline::default(),
            samples: Samples::new(file("samples")),
        }
    }

    /// Reads everything that is there.
    pub(super) fn catch_up(&mut self) {
        while self.poll().1 {}
    }

    /// Reads what the files have more than the last time. Returns it, if there is anything, and whether there is yet more.
    pub(super) fn poll(&mut self) -> (Option<Delta>, bool) {
        let mut fresh = [self.metrics.poll(), self.journal_file.poll(), self.trace.poll()];
        let restarted = fresh.iter().any(|file| file.restarted);
        if restarted {
            *self = Self { version: self.version, ..Self::new(&self.folder.clone()) };
            fresh = [self.metrics.poll(), self.journal_file.poll(), self.trace.poll()];
        }
        let more = fresh.iter().any(|file| file.more);
        let (head, files) = self.overview.poll();
        let news = self.take(fresh);
        if !(restarted || head || files) && news.is_empty() {
            return (None, more);
        }
        let gap = restarted || files || news.lines() > MOST_NEWS;
        self.version += if gap { 2 } else { 1 };
        let news = if gap { News::default() } else { news };
        (Some(Delta { version: self.version, head: self.head(), news }), more)
    }

    /// Returns everything that the page shows, bounded.
    pub(super) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            version: self.version,
            head: self.head(),
            curves: &self.curves,
            invariants: &self.invariants,
            policies: self.overview.policies(),
            entries: self.journal.entries(),
            timeline: &self.timeline,
            iterations: self.samples.iterations(),
            pairs: self.samples.pairs(),
            config: self.overview.config(),
            plan: self.overview.plan(),
        }
    }

    pub(super) fn head(&self) -> Head {
        let written = |name: &str| look(&self.folder.join(name)).map(|(_, time)| seconds(time));
        let updated = [written("metrics.jsonl"), written("journal.jsonl")];
        let updated = updated.into_iter().flatten().reduce(f64::max);
        let step = self.curves.latest().map_or(0, |row| row.step);
        self.overview.head(&self.journal, step, updated)
    }

    pub(super) fn latest(&self) -> Option<&Row> {
        self.curves.latest()
    }

    pub(super) fn invariants(&self) -> &Invariants {
        &self.invariants
    }

    fn take(&mut self, [metrics, journal, trace]: [Fresh; 3]) -> News {
        let mut news = News::default();
        for row in metrics.lines.iter().filter_map(|line| Row::parse(line)) {
            self.invariants.count(&row);
            self.curves.push(row.clone());
            news.rows.push(row);
        }
        for entry in journal.lines.iter().filter_map(|line| self.journal.push(line)) {
            self.invariants.hear(&entry);
            news.entries.push(entry);
        }
        news.spans = trace.lines.iter().filter_map(|line| self.timeline.push(line)).collect();
        news.iterations = self.samples.poll();
        if !news.iterations.is_empty() {
            news.pairs = self.samples.pairs();
        }
        let counted = !(news.rows.is_empty() && news.entries.is_empty());
        news.invariants = counted.then(|| json!(self.invariants));
        news
    }
}

impl News {
    fn lines(&self) -> usize {
        self.rows.len() + self.entries.len() + self.spans.len() + self.iterations.len()
    }

    fn is_empty(&self) -> bool {
        self.lines() == 0
    }
}
