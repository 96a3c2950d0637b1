//! Generation. Knows nothing of rewards, losses or the trainer: new weights arrive as [`crate::rollout::Weights`].

pub mod backend;
pub mod error;
pub mod native;

pub use backend::{
    Backend, Event, RefitMode, RefitReport, Request, RequestId, SamplingParams, Stats,
};
pub use error::Error;
