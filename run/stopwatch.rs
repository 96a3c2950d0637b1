//! How long each phase of an iteration took: for the metrics `timing_s/*`, and for the trace.

use std::time::{Duration, Instant};

use super::{
    DirectoryError, Metrics,
    record::{Lane, Trace},
};
use crate::trainer::Phase;

/// Measures phases that follow each other.
pub(super) struct Stopwatch {
    trace: Trace,
    iteration: u64,
    started: Instant,
    lap: Instant,
    laps: Metrics,
}

impl Stopwatch {
    /// Starts the first phase of an iteration.
    pub(super) fn start(trace: Trace, iteration: u64) -> Self {
        let now = Instant::now();
        Self { trace, iteration, started: now, lap: now, laps: Metrics::new() }
    }

    /// Ends a phase, which becomes a span of its lane and the metric `timing_s/<name>` (seconds), and starts the next.
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub(super) fn lap(&mut self, lane: Lane, name: &'static str) -> Result<(), DirectoryError> {
        let (began, ended) = (self.lap, Instant::now());
        self.lap = ended;
        self.count(name, ended - began);
        self.trace.span((lane, name), (began, ended), self.iteration)
    }

    /// Takes in what the trainer did within the latest phases: spans of a lane and metrics, as in [`Stopwatch::lap`].
    ///
    /// # Errors
    /// When the trace cannot be written.
    pub(super) fn parts(&mut self, lane: Lane, phases: &[Phase]) -> Result<(), DirectoryError> {
        for phase in phases {
            self.count(phase.name, phase.duration());
            self.trace.span((lane, phase.name), (phase.began, phase.ended), self.iteration)?;
        }
        Ok(())
    }

    fn count(&mut self, name: &str, more: Duration) {
        let metric = format!("timing_s/{name}");
        let before = self.laps.get(&metric).unwrap_or_default();
        self.laps.set(metric, before + more.as_secs_f64());
    }

    /// Returns the seconds since the start.
    pub(super) fn total(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Ends the iteration. Returns its phases; all its time, and how many tokens went through the trainer in it; and how
    /// much engine and trainer waited since the iteration before it ended.
    pub(super) fn metrics(self, tokens: usize) -> Metrics {
        let total = self.total();
        let ratios = self.trace.ratios().map(|ratios| ratios.metrics()).unwrap_or_default();
        let mut metrics = self
            .laps
            .with("timing_s/step", total)
            .with("perf/time_per_step", total)
            .with("perf/total_num_tokens", tokens as f64)
            .with("perf/throughput", tokens as f64 / total.max(1e-9));
        metrics.extend(ratios);
        metrics
    }
}
