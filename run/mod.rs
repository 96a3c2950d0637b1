//! The loops: the only place that sees engine and trainer together.

pub mod demo;
mod directory;
pub mod machine;
mod metrics;
mod observer;
mod progress;

pub use directory::{DirectoryError, RunDirectory};
pub use metrics::Metrics;
pub use observer::{Observer, Silent};
pub use progress::Progress;
