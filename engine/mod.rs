//! Generation. Knows nothing of rewards, losses or the trainer: new weights arrive as [`crate::rollout::Weights`].
//!
//! [`Engine`] is the embedded API: a cloneable handle to a [`Backend`] on a thread of its own.
//!
//! ```
//! use rollforge::engine::{Engine, EngineModel, SamplingParams};
//!
//! let engine = Engine::builder().model(EngineModel::tiny(0)).build()?;
//! let sampling = SamplingParams { max_new_tokens: 8, n: 2, ..SamplingParams::default() };
//! let texts = engine.blocking().generate_text("Once upon", sampling)?;
//! assert_eq!(texts.len(), 2);
//! # Ok::<(), rollforge::engine::Error>(())
//! ```
//!
//! The same seed gives the same rollouts, whatever the batch, the number of threads and the order of arrival.

mod assembly;
pub mod backend;
mod busy;
mod config;
pub mod error;
mod handle;
pub mod native;
mod open;
#[cfg(feature = "tensorrt-llm")]
pub mod tensorrt_llm;
mod text;
mod worker;

pub use assembly::{SampledToken, StreamEvent};
pub use backend::{
    Backend, Event, RefitMode, RefitReport, Request, RequestId, SamplingParams, Stats, Verdict,
};
pub use config::{
    BackendKind, CanaryConfig, EngineConfig, EngineDtype, RefitInFlight, RefitTier,
    TensorRtLlmConfig,
};
pub use error::Error;
pub use handle::{Blocking, Engine, EngineBuilder, Rollouts, TokenStream};
pub use open::{EngineModel, open};
