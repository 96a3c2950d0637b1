//! Which samples make up each optimizer step.

use crate::data::{Cursor, CursorError, DataConfig, Order};

/// Deals samples into optimizer steps. No step mixes epochs: an epoch's last one holds what is left.
pub(super) struct Batches {
    order: Order,
    samples: usize,
    batch_size: usize,
}

impl Batches {
    /// Prepares to deal `samples` samples.
    pub(super) fn new(data: &DataConfig, seed: u64, samples: usize, batch_size: usize) -> Self {
        Self { order: order(data, seed, samples), samples, batch_size }
    }

    /// Returns how many optimizer steps a run takes: all epochs, or `max_steps` where that is given and comes first.
    pub(super) fn total(&self, epochs: usize, max_steps: u64) -> u64 {
        let an_epoch = self.samples.div_ceil(self.batch_size) as u64;
        let all = an_epoch.saturating_mul(epochs as u64);
        if max_steps > 0 { all.min(max_steps) } else { all }
    }

    /// Goes on after so many steps.
    pub(super) fn seek(&mut self, steps: u64) -> Result<(), CursorError> {
        let an_epoch = self.samples.div_ceil(self.batch_size) as u64;
        let index = (steps % an_epoch) as usize * self.batch_size;
        self.order.seek(Cursor { epoch: steps / an_epoch, index })
    }

    /// Returns the indices of the next step's samples.
    pub(super) fn deal(&mut self) -> Vec<usize> {
        let left = self.samples - self.order.cursor().index;
        self.order.by_ref().take(left.min(self.batch_size)).collect()
    }
}

/// Returns the order that the data section asks for.
pub(super) fn order(data: &DataConfig, seed: u64, samples: usize) -> Order {
    if data.shuffle { Order::shuffled(samples, seed) } else { Order::sequential(samples) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_uses_every_sample_once_and_ends_with_the_rest() {
        let data = DataConfig::new(vec![]);
        let mut batches = Batches::new(&data, 3, 10, 4);
        assert_eq!((batches.total(2, 0), batches.total(2, 5), batches.total(1, 9)), (6, 5, 3));
        assert_eq!(batches.total(usize::MAX, 7), 7);
        for _ in 0..2 {
            let dealt: Vec<Vec<usize>> = (0..3).map(|_| batches.deal()).collect();
            assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
            let mut all = dealt.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_run_that_goes_on_is_dealt_what_is_left() {
        let data = DataConfig::new(vec![]);
        let fresh = || Batches::new(&data, 3, 10, 4);
        for steps in 0..7 {
            let (mut whole, mut resumed) = (fresh(), fresh());
            (0..steps).for_each(|_| drop(whole.deal()));
            resumed.seek(steps).unwrap();
            for _ in 0..4 {
                assert_eq!(resumed.deal(), whole.deal(), "{steps}");
            }
        }
    }
}
