//! What a model is worth: perplexity, accuracy on pairs, win rate, accuracy of answers, best of n.
//!
//! Nothing is written but the report. Completions are sampled by an engine of the measure's own and judged by the sources of
//! rewards that a PPO run would ask ([`crate::config::RewardConfig`]).

mod curve;
#[cfg(feature = "libtorch")]
mod judge;
#[cfg(feature = "libtorch")]
mod measures;
mod plot;
mod report;
mod share;

pub use curve::{CurvePoint, best_of_n};
#[cfg(feature = "libtorch")]
pub use measures::eval;
pub use plot::plot;
pub use report::EvalReport;
pub use share::Share;

/// Returns the mean; 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}
