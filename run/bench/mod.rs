//! Measurements of whole pieces of the machine, for `rollforge bench`.

mod engine;
mod refit;
mod shape;
mod statistics;

pub use engine::{EngineBench, EngineTimes, Rate, engine};
pub use refit::{RefitBench, RefitTimes, refit};
pub use shape::Shape;
pub use statistics::Measurements;
