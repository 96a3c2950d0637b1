//! Sequences into bins of a token budget.

use std::{cmp::Reverse, collections::BTreeSet};

/// Packs sequences into as few bins as best-fit decreasing finds: the longest first, each into the fullest bin that
/// still has room (Johnson, 1974: at most 11/9 of the optimum, plus one). The same lengths always give the same bins.
///
/// Returns the indices into `lengths` of each bin, ascending within a bin. A sequence longer than the budget has a bin
/// of its own.
///
/// ```
/// use rollforge::data::pack;
///
/// assert_eq!(pack(&[5, 3, 4, 2], 7), [vec![0, 3], vec![1, 2]]);
/// ```
pub fn pack(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|&index| (Reverse(lengths[index]), index));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // (room left, bin): the first entry with enough room is the fullest bin that fits, the oldest among equals.
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new();
    for index in longest_first {
        let length = lengths[index];
        let fitting = room.range((length, 0)..).next().copied();
        let (left, bin) = fitting.unwrap_or_else(|| {
            bins.push(Vec::new());
            (budget.max(length), bins.len() - 1)
        });
        room.remove(&(left, bin));
        room.insert((left - length, bin));
        bins[bin].push(index);
    }
    bins.iter_mut().for_each(|bin| bin.sort_unstable());
    bins
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(bin: &[usize], lengths: &[usize]) -> usize {
        bin.iter().map(|&index| lengths[index]).sum()
    }

    #[test]
    fn each_sequence_goes_into_the_fullest_bin_with_room() {
        assert_eq!(pack(&[6, 5, 3, 4], 9), [vec![0, 2], vec![1, 3]]);
        assert_eq!(pack(&[6, 5, 3], 9), [vec![0, 2], vec![1]]);
        assert_eq!(pack(&[4, 4, 4, 4], 8), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_sequence_beyond_the_budget_is_alone() {
        assert_eq!(pack(&[9, 1, 2], 4), [vec![0], vec![1, 2]]);
    }

    #[test]
    fn nothing_packs_into_nothing() {
        assert!(pack(&[], 4).is_empty());
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_exactly_one_bin(
            lengths in prop::collection::vec(0usize..40, 0..200), budget in 1usize..60,
        ) {
            let mut seen: Vec<usize> = pack(&lengths, budget).concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        }

        #[test]
        fn no_bin_of_several_is_over_the_budget(
            lengths in prop::collection::vec(1usize..40, 0..200), budget in 1usize..60,
        ) {
            for bin in pack(&lengths, budget) {
                prop_assert!(bin.len() == 1 || filled(&bin, &lengths) <= budget);
            }
        }

        #[test]
        fn no_two_bins_could_have_been_one(
            lengths in prop::collection::vec(1usize..40, 0..100), budget in 1usize..60,
        ) {
            let mut fills: Vec<usize> =
                pack(&lengths, budget).iter().map(|bin| filled(bin, &lengths)).collect();
            fills.sort_unstable();
            if let [least, next, ..] = fills[..] {
                prop_assert!(least + next > budget);
            }
        }
    }
}
