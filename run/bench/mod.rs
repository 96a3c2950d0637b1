//! Measurements of whole pieces of the machine, for `rollforge bench`.

mod refit;

pub use refit::{RefitBench, RefitTimes, refit};
