//! Samples that hold what a reference says of them, so that the reference is asked once and then gone.

use super::{Error, learner::LanguageModel};

/// A sample with the log-probs of its completions under a reference.
pub trait Referred: Copy {
    /// Returns the tokens of its longest sequence.
    fn longest(&self) -> usize;

    /// Asks a reference about the samples of one optimizer step, over the micro-batches that the step trains on: the same
    /// weights have the same numbers there, bit for bit.
    ///
    /// # Errors
    /// When the model cannot compute.
    fn refer(
        batch: &mut [Self],
        model: &(impl LanguageModel + ?Sized),
        token_budget: usize,
    ) -> Result<(), Error>;
}
