//! Optimizer steps that were not taken.

use serde::{Deserialize, Serialize};

/// Counts the optimizer steps of a model that were skipped, because loss or gradient was not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skips {
    count: u64,
    in_a_row: u64,
    longest: u64,
}

impl Skips {
    /// Begins an iteration: the count starts again, a row that has not ended goes on.
    pub fn begin(&mut self) {
        *self = Self { in_a_row: self.in_a_row, ..Self::default() };
    }

    /// Takes note of an optimizer step, as [`Learner::step_if_finite`](super::learner::Learner::step_if_finite)
    /// returns it.
    pub fn note(&mut self, grad_norm: Option<f64>) {
        match grad_norm {
            Some(_) => self.in_a_row = 0,
            None => {
                self.count += 1;
                self.in_a_row += 1;
                self.longest = self.longest.max(self.in_a_row);
            }
        }
    }

    /// Returns how many steps of this iteration were skipped.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the most that were skipped one right after the other, up to a step of this iteration.
    pub fn longest(&self) -> u64 {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_skipped_steps_goes_on_across_iterations_until_one_is_taken() {
        let mut skips = Skips::default();
        [None, Some(1.0), None, None].into_iter().for_each(|norm| skips.note(norm));
        assert_eq!((skips.count(), skips.longest()), (3, 2));
        skips.begin();
        assert_eq!((skips.count(), skips.longest()), (0, 0));
        [None, Some(1.0)].into_iter().for_each(|norm| skips.note(norm));
        assert_eq!((skips.count(), skips.longest()), (1, 3));
        skips.begin();
        assert_eq!((skips.count(), skips.longest()), (0, 0));
    }
}
