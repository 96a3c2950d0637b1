//! Which checkpoints stay. Pure: steps and scores in, steps to delete out.

use std::collections::BTreeSet;

/// How many checkpoints stay, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// So many of the latest ones. 0: all.
    pub(crate) keep: usize,
    /// Besides them, so many of those with the best scores.
    pub(crate) keep_best: usize,
    /// Whether a larger score is a better one.
    pub(crate) larger_is_better: bool,
}

/// A checkpoint as retention sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) step: u64,
    /// `None`, like a score that is no number, is never among the best.
    pub(super) score: Option<f64>,
}

impl Retention {
    /// Returns the steps to delete, in order. `latest` always stays; of equal scores the earlier one counts as better.
    pub(super) fn surplus(&self, kept: &[Kept], latest: u64) -> Vec<u64> {
        let mut steps: Vec<u64> = kept.iter().map(|one| one.step).collect();
        steps.sort_unstable();
        if self.keep == 0 {
            return Vec::new();
        }
        let newest = steps.iter().rev().take(self.keep).copied();
        let stays: BTreeSet<u64> = newest.chain(self.best(kept)).chain([latest]).collect();
        steps.retain(|step| !stays.contains(step));
        steps
    }

    /// Returns those with the best scores, the best first.
    pub(super) fn best(&self, kept: &[Kept]) -> impl Iterator<Item = u64> + use<> {
        let sign = if self.larger_is_better { 1.0 } else { -1.0 };
        let scored = kept.iter().filter_map(|one| Some((sign * one.score?, one.step)));
        let mut scored: Vec<_> = scored.filter(|(score, _)| !score.is_nan()).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.into_iter().take(self.keep_best).map(|(_, step)| step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCORES: [(u64, Option<f64>); 6] = [
        (1, Some(0.5)),
        (2, Some(0.9)),
        (3, Some(f64::NAN)),
        (4, None),
        (10, Some(0.9)),
        (9, Some(0.1)),
    ];

    fn surplus(keep: usize, keep_best: usize, larger_is_better: bool, latest: u64) -> Vec<u64> {
        let kept = SCORES.map(|(step, score)| Kept { step, score });
        Retention { keep, keep_best, larger_is_better }.surplus(&kept, latest)
    }

    #[test]
    fn the_newest_by_number_and_the_best_by_score_stay() {
        for (keep, keep_best, larger_is_better, expected) in [
            (0, 0, true, vec![]),
            (0, 1, true, vec![]),
            (1, 0, true, vec![1, 2, 3, 4, 9]),
            (2, 0, true, vec![1, 2, 3, 4]),
            (9, 0, true, vec![]),
            // The newest is as good as the best, but later.
            (1, 1, true, vec![1, 3, 4, 9]),
            // One of the best is the newest: it takes no second place.
            (1, 2, true, vec![1, 3, 4, 9]),
            (1, 3, true, vec![3, 4, 9]),
            // What has no score is never among the best.
            (1, 9, true, vec![3, 4]),
            (1, 1, false, vec![1, 2, 3, 4]),
            (1, 2, false, vec![2, 3, 4]),
        ] {
            let found = surplus(keep, keep_best, larger_is_better, 10);
            assert_eq!(found, expected, "{keep} {keep_best} {larger_is_better}");
        }
    }

    #[test]
    fn the_latest_stays_whatever_its_number() {
        assert_eq!(surplus(1, 0, true, 2), [1, 3, 4, 9]);
    }

    #[test]
    fn nothing_is_deleted_of_nothing() {
        let retention = Retention { keep: 1, keep_best: 1, larger_is_better: true };
        assert!(retention.surplus(&[], 0).is_empty());
    }
}
