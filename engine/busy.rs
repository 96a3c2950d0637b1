//! When the engine was at work, for whoever draws a timeline.

use std::{collections::VecDeque, ops::Range, time::Instant};

/// The most stretches that are kept for a caller who does not ask.
const MOST: usize = 1024;

/// Stretches of time from the first request to the last answer.
#[derive(Debug, Default)]
pub(super) struct BusyTimes {
    since: Option<Instant>,
    ended: VecDeque<Range<Instant>>,
}

impl BusyTimes {
    /// Takes in whether the engine is at work now.
    pub(super) fn observe(&mut self, busy: bool, now: Instant) {
        match (busy, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.since = None;
                self.end(since..now);
            }
            _ => {}
        }
    }

    /// Takes the stretches since this was last asked, of the one under way the part that is over.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Range<Instant>> {
        if let Some(since) = &mut self.since {
            let over = std::mem::replace(since, now)..now;
            self.end(over);
        }
        self.ended.drain(..).collect()
    }

    fn end(&mut self, stretch: Range<Instant>) {
        if self.ended.len() == MOST {
            self.ended.pop_front();
        }
        self.ended.push_back(stretch);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_stretch_goes_from_the_first_sign_of_work_to_the_first_without() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut times = BusyTimes::default();
        for (second, busy) in [(0, false), (1, true), (2, true), (4, false), (5, false), (7, true)]
        {
            times.observe(busy, at(second));
        }
        assert_eq!(times.take(at(9)), [at(1)..at(4), at(7)..at(9)]);
        times.observe(false, at(12));
        assert_eq!(times.take(at(13)), [at(9)..at(12)]);
        assert_eq!(times.take(at(14)), []);
    }

    #[test]
    fn the_oldest_are_forgotten_where_nobody_asks() {
        let start = Instant::now();
        let mut times = BusyTimes::default();
        for _ in 0..MOST + 5 {
            times.observe(true, start);
            times.observe(false, start);
        }
        assert_eq!(times.take(start).len(), MOST);
    }
}
