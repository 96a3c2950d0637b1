//! What was computed when, for whoever draws a timeline.

use std::time::{Duration, Instant};

/// A stretch of one kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// The work, by verl's name: `old_log_prob`, `ref`, `values`, `adv`, `update_critic`, `update_actor`.
    pub name: &'static str,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
}

impl Phase {
    /// Returns how long it took.
    pub fn duration(&self) -> Duration {
        self.ended - self.began
    }
}

/// The phases since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Phases(Vec<Phase>);

impl Phases {
    /// Does some work and keeps when it was done.
    pub(super) fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.ended(name, began);
        done
    }

    /// Keeps that work which began then has ended now.
    pub(super) fn ended(&mut self, name: &'static str, began: Instant) {
        self.0.push(Phase { name, began, ended: Instant::now() });
    }

    pub(super) fn take(&mut self) -> Vec<Phase> {
        std::mem::take(&mut self.0)
    }
}
