//! The demo's world: product reviews from a grammar, and a judge of them that knows nothing of the reward model.
//!
//! The grammar builds each review to have a sentiment and says which ([`Review::sentiment`]); the [`Judge`] reads any
//! text, well formed or not, word by word. They share the lexicon and no code.

mod dataset;
mod grammar;
mod judge;
// Tables: as many words on a line as fit.
#[rustfmt::skip]
mod lexicon;
mod patterns;
#[cfg(feature = "libtorch")]
mod pipeline;

use serde::{Deserialize, Serialize};

pub use dataset::{DemoData, Sizes};
pub use grammar::{Grammar, Opening, Review, WORDS};
pub use judge::{Judge, Summary, Verdict, distinct_2};
#[cfg(feature = "libtorch")]
pub use pipeline::{Continuation, DemoOptions, DemoReport, Thresholds, demo};

/// What a review says of its product, on the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sentiment {
    /// More blame than praise.
    Negative,
    /// As much of one as of the other, or none.
    Neutral,
    /// More praise than blame.
    Positive,
}

impl Sentiment {
    /// Returns the sentiment of a score: its sign.
    pub fn of(score: i32) -> Self {
        match score.signum() {
            1 => Self::Positive,
            0 => Self::Neutral,
            _ => Self::Negative,
        }
    }

    /// Returns positive for negative and the reverse.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Positive => Self::Negative,
            Self::Neutral => Self::Neutral,
            Self::Negative => Self::Positive,
        }
    }
}
