//! Generation with TensorRT-LLM: the [`Backend`](super::Backend) over its Executor.
//!
//! One thread owns the library's objects and does one job at a time (`driver`); the engine thread waits for each job, but
//! never longer than the deadline, so that a call that hangs is an error that names it. A refit goes through the phases of
//! `state`: drain, quiesce, refit, verify; one that fails half way poisons the engine, which is then rebuilt from its plan
//! and the weights at hand.
//!
//! What differs from the embedded engine: log-probs are those of the temperature-scaled distribution, also where top-k,
//! top-p or min-p cut it off; prompts are not scored; raw log-probs come only where they equal the others.

mod asked;
mod backend;
mod coverage;
mod double_plan;
mod driver;
mod open;
mod probe;
mod refit;
mod requests;
mod staging;
mod state;
mod statistics;

pub use backend::TensorRtLlm;
pub use double_plan::{DoubleBuild, write_double_engine};
