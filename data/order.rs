//! The order in which samples are used: a new permutation each epoch, resumable anywhere.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::{Deserialize, Serialize};

/// A place in the order of samples: the next one to use.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// How many times all samples have been used.
    pub epoch: u64,
    /// How many samples of this epoch have been used.
    pub index: usize,
}

impl Cursor {
    /// Returns the place after so many samples have been used, of `samples` there are.
    ///
    /// # Panics
    /// If there are no samples.
    pub fn after(used: u64, samples: usize) -> Self {
        let samples = samples as u64;
        Self { epoch: used / samples, index: (used % samples) as usize }
    }
}

/// A cursor that lies outside the data: the files are not those the run was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("data cursor must be below the number of samples {samples}, got {index}")]
pub struct CursorError {
    /// Where the cursor points within its epoch.
    pub index: usize,
    /// How many samples there are.
    pub samples: usize,
}

/// An endless iterator over the indices of samples, each exactly once per epoch.
///
/// The permutation depends on seed, epoch and number of samples alone: not on threads, not on how the run got here.
///
/// ```
/// use rollforge::data::Order;
///
/// let mut order = Order::shuffled(3, 7);
/// let epoch: Vec<usize> = order.by_ref().take(3).collect();
/// let mut resumed = Order::shuffled(3, 7);
/// resumed.seek(order.cursor())?;
/// assert_eq!(order.next(), resumed.next());
/// # Ok::<(), rollforge::data::CursorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Order {
    samples: usize,
    seed: Option<u64>,
    cursor: Cursor,
    /// Of `cursor.epoch`.
    permutation: Vec<usize>,
}

impl Order {
    /// Shuffles `samples` indices anew each epoch.
    ///
    /// # Panics
    /// If there are no samples.
    pub fn shuffled(samples: usize, seed: u64) -> Self {
        Self::new(samples, Some(seed))
    }

    /// Keeps the order of the files in each epoch.
    ///
    /// # Panics
    /// If there are no samples.
    pub fn sequential(samples: usize) -> Self {
        Self::new(samples, None)
    }

    fn new(samples: usize, seed: Option<u64>) -> Self {
        assert!(samples > 0, "an order needs samples");
        let permutation = permutation(samples, seed, 0);
        Self { samples, seed, cursor: Cursor::default(), permutation }
    }

    /// Returns the place of the next sample.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Continues from a place that [`Order::cursor`] returned.
    ///
    /// # Errors
    /// When the place is not within the data.
    pub fn seek(&mut self, cursor: Cursor) -> Result<(), CursorError> {
        if cursor.index >= self.samples {
            return Err(CursorError { index: cursor.index, samples: self.samples });
        }
        self.permutation = permutation(self.samples, self.seed, cursor.epoch);
        self.cursor = cursor;
        Ok(())
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let sample = self.permutation[self.cursor.index];
        self.cursor.index += 1;
        if self.cursor.index == self.samples {
            self.cursor = Cursor { epoch: self.cursor.epoch + 1, index: 0 };
            self.permutation = permutation(self.samples, self.seed, self.cursor.epoch);
        }
        Some(sample)
    }
}

/// Shuffles `0..samples` (Fisher and Yates; Durstenfeld, 1964), by a stream of random numbers of the epoch's own.
fn permutation(samples: usize, seed: Option<u64>, epoch: u64) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..samples).collect();
    if let Some(seed) = seed {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        // So that nothing else that is keyed by the run's seed draws the same numbers.
        key[8..20].copy_from_slice(b"sample order");
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(epoch);
        for last in (1..samples).rev() {
            indices.swap(last, below(&mut rng, last as u64 + 1) as usize);
        }
    }
    indices
}

/// Draws a number below `bound`, each with the same probability (Lemire, 2019).
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= bound.wrapping_neg() % bound {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_of_a_seed_never_changes() {
        // A resumed run relies on this across versions of this program and of its dependencies.
        let order: Vec<usize> = Order::shuffled(8, 1).take(16).collect();
        assert_eq!(order, [1, 5, 2, 6, 3, 4, 0, 7, 2, 4, 6, 3, 5, 1, 0, 7]);
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let epochs: Vec<usize> = Order::shuffled(50, 1).take(100).collect();
        assert_ne!(epochs[..50], epochs[50..]);
        assert_ne!(epochs[..50], Order::shuffled(50, 2).take(50).collect::<Vec<_>>());
    }

    #[test]
    fn the_sequential_order_is_that_of_the_files() {
        assert_eq!(Order::sequential(3).take(7).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_cursor_outside_the_data_is_refused() {
        let error = Order::sequential(3).seek(Cursor { epoch: 0, index: 3 }).expect_err("refused");
        assert_eq!(error.to_string(), "data cursor must be below the number of samples 3, got 3");
    }

    #[test]
    fn every_place_is_equally_likely() {
        let mut counts = [[0u32; 4]; 4];
        for seed in 0..4000 {
            for (place, sample) in Order::shuffled(4, seed).take(4).enumerate() {
                counts[place][sample] += 1;
            }
        }
        // Binomial with mean 1000 and standard deviation 27: six of them either way.
        assert!(
            counts.as_flattened().iter().all(|count| (836..=1164).contains(count)),
            "{counts:?}"
        );
    }

    proptest! {
        #[test]
        fn an_epoch_uses_every_sample_once(samples in 1usize..200, seed: u64) {
            let mut order = Order::shuffled(samples, seed);
            for epoch in 0..3 {
                prop_assert_eq!(order.cursor(), Cursor { epoch, index: 0 });
                let mut seen: Vec<usize> = order.by_ref().take(samples).collect();
                seen.sort_unstable();
                prop_assert_eq!(seen, (0..samples).collect::<Vec<_>>());
            }
        }

        #[test]
        fn a_resumed_order_goes_on_as_if_never_stopped(
            samples in 1usize..60, seed: u64, used in 0usize..150,
        ) {
            let mut order = Order::shuffled(samples, seed);
            order.by_ref().take(used).count();
            let mut resumed = Order::shuffled(samples, seed);
            resumed.seek(order.cursor()).expect("within the data");
            prop_assert_eq!(
                order.take(100).collect::<Vec<_>>(), resumed.take(100).collect::<Vec<_>>()
            );
        }
    }
}
