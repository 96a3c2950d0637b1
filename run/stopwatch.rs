//! How long each phase of an iteration took.

use std::time::Instant;

use super::Metrics;

/// Measures phases that follow each other.
pub(super) struct Stopwatch {
    started: Instant,
    lap: Instant,
    laps: Vec<(&'static str, f64)>,
}

impl Stopwatch {
    /// Starts the first phase.
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self { started: now, lap: now, laps: Vec::new() }
    }

    /// Ends a phase under its metric's name (seconds) and starts the next.
    pub(super) fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.laps.push((name, (now - self.lap).as_secs_f64()));
        self.lap = now;
    }

    /// Returns the seconds since the start.
    pub(super) fn total(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Returns the phases, and all time since the start under `total`'s name.
    pub(super) fn metrics(&self, total: &'static str) -> Metrics {
        self.laps.iter().copied().chain([(total, self.total())]).collect()
    }
}
