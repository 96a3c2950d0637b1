//! TensorRT-LLM's Executor, and whatever keeps the same contract (`contract.h`).

mod bridge;
mod contract;
mod description;
pub mod double;
mod error;
mod executor;
mod plan;
mod refit;
mod request;
mod streams;
mod weights;

pub use description::{Capabilities, Description, Library};
pub use error::{Error, Status};
pub use executor::{Executor, ExecutorOptions};
pub use plan::Plan;
pub use request::{FinishReason, Request, Response};
pub use weights::{Bindable, DataType, WeightInfo};
