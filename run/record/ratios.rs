//! How much engine and trainer wait for each other: shares of time, computed from the spans of a trace.

use std::ops::{AddAssign, Range};

use super::{Lane, Span};
use crate::run::Metrics;

/// The lanes in which the trainer is at work.
const TRAINER: [Lane; 4] = [Lane::Score, Lane::Train, Lane::Refit, Lane::Checkpoint];

/// Shares of the wall time of an iteration, or of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratios {
    /// The trainer waits for rollouts.
    pub trainer_idle: f64,
    /// The engine has nothing to generate.
    pub engine_idle: f64,
    /// The engine generates while the trainer scores, trains, refits or writes a checkpoint.
    pub overlap: f64,
}

impl Ratios {
    /// Returns the shares of a stretch of time (microseconds since 1970). `None` for a stretch of no time.
    pub fn of(spans: &[Span], stretch: Range<u64>) -> Option<Self> {
        Shares::of(spans, stretch).ratios()
    }

    /// Returns the shares of a whole run: of each time it was started, from its first span to its last. `None` where there
    /// is no span.
    pub fn of_run(starts: &[Vec<Span>]) -> Option<Self> {
        let mut sum = Shares::default();
        for spans in starts {
            let begin = spans.iter().map(|span| span.start).min().unwrap_or_default();
            let end = spans.iter().map(|span| span.end).max().unwrap_or_default();
            sum += Shares::of(spans, begin..end);
        }
        sum.ratios()
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> Metrics {
        Metrics::new()
            .with("perf/trainer_idle_ratio", self.trainer_idle)
            .with("perf/engine_idle_ratio", self.engine_idle)
            .with("perf/overlap_ratio", self.overlap)
    }
}

/// Microseconds of a stretch, by what was at work.
#[derive(Clone, Copy, Debug, Default)]
struct Shares {
    wall: u64,
    waiting: u64,
    generating: u64,
    both: u64,
}

impl Shares {
    fn of(spans: &[Span], stretch: Range<u64>) -> Self {
        let generating = busy(spans, &[Lane::Generate], &stretch);
        let training = busy(spans, &TRAINER, &stretch);
        Self {
            wall: stretch.end.saturating_sub(stretch.start),
            waiting: total(&busy(spans, &[Lane::Wait], &stretch)),
            generating: total(&generating),
            both: total(&common(&generating, &training)),
        }
    }

    fn ratios(self) -> Option<Ratios> {
        let share = |part: u64| part as f64 / self.wall as f64;
        (self.wall > 0).then(|| Ratios {
            trainer_idle: share(self.waiting),
            engine_idle: 1.0 - share(self.generating),
            overlap: share(self.both),
        })
    }
}

impl AddAssign for Shares {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.waiting += other.waiting;
        self.generating += other.generating;
        self.both += other.both;
    }
}

/// Returns when one of the lanes was busy within a stretch: ranges that neither touch nor overlap, in order.
fn busy(spans: &[Span], lanes: &[Lane], stretch: &Range<u64>) -> Vec<Range<u64>> {
    let within = spans
        .iter()
        .filter(|span| lanes.contains(&span.lane))
        .map(|span| span.start.max(stretch.start)..span.end.min(stretch.end));
    let mut ranges: Vec<_> = within.filter(|range| range.start < range.end).collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Returns what two such lists of ranges have in common.
fn common(a: &[Range<u64>], b: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut i, mut j, mut shared) = (0, 0, Vec::new());
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (start, end) = (x.start.max(y.start), x.end.min(y.end));
        if start < end {
            shared.push(start..end);
        }
        // The one that ends first can meet nothing further.
        if x.end <= y.end {
            i += 1;
        } else {
            j += 1;
        }
    }
    shared
}

fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(lane: Lane, start: u64, end: u64) -> Span {
        Span { lane, name: "work".into(), start, end, iteration: 1 }
    }

    #[test]
    fn taking_turns_idles_and_never_overlaps() {
        // 0..6 generate while the trainer waits, 6..10 train.
        let spans = [
            span(Lane::Generate, 0, 6),
            span(Lane::Wait, 0, 6),
            span(Lane::Score, 6, 8),
            span(Lane::Train, 8, 10),
        ];
        let expected = Ratios { trainer_idle: 0.6, engine_idle: 0.4, overlap: 0.0 };
        assert_eq!(Ratios::of(&spans, 0..10), Some(expected));
        assert_eq!(Ratios::of_run(&[spans.to_vec()]), Some(expected));
    }

    #[test]
    fn overlap_agrees_with_the_table() {
        // generate  ####..######....     0..4, 6..12
        // trainer   ..####....######     score 2..6, train 10..16, and a part of each again inside of it
        let spans = [
            span(Lane::Generate, 6, 12),
            span(Lane::Generate, 0, 4),
            span(Lane::Score, 2, 6),
            span(Lane::Score, 3, 5),
            span(Lane::Train, 10, 16),
            span(Lane::Train, 12, 14),
            span(Lane::Wait, 6, 10),
        ];
        let ratios = Ratios::of(&spans, 0..16).unwrap();
        let expected =
            Ratios { trainer_idle: 4.0 / 16.0, engine_idle: 6.0 / 16.0, overlap: 4.0 / 16.0 };
        assert_eq!(ratios, expected);
        // What lies outside the stretch does not count: 3..11 has generate 3..4 and 6..11, both 3..4 and 10..11.
        let ratios = Ratios::of(&spans, 3..11).unwrap();
        let expected = Ratios { trainer_idle: 0.5, engine_idle: 2.0 / 8.0, overlap: 2.0 / 8.0 };
        assert_eq!(ratios, expected);
    }

    #[test]
    fn the_time_between_two_starts_of_a_run_is_nobodys() {
        let first = vec![span(Lane::Generate, 0, 2), span(Lane::Train, 2, 4)];
        let second = vec![span(Lane::Wait, 1000, 1001), span(Lane::Generate, 1000, 1004)];
        let ratios = Ratios::of_run(&[first, second, Vec::new()]).unwrap();
        assert_eq!(ratios, Ratios { trainer_idle: 1.0 / 8.0, engine_idle: 0.25, overlap: 0.0 });
        assert_eq!(Ratios::of_run(&[]), None);
        assert_eq!(Ratios::of(&[], 5..5), None);
    }
}
