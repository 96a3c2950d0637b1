//! The loops: the only place that sees engine and trainer together.
//!
//! [`sft`], [`reward_model`], [`regression`], [`dpo`], [`kto`], [`spin`], [`distill`] and [`ppo`] take a configuration and a [`Launch`], and leave a [`RunDirectory`].

#![cfg_attr(
    not(feature = "libtorch"),
    allow(
        dead_code,
        unused_imports,
        reason = "a build without libtorch reads what runs leave, and runs nothing"
    )
)]

mod agreement;
#[cfg(feature = "libtorch")]
mod annotate;
mod batches;
pub mod bench;
#[cfg(feature = "libtorch")]
mod canary;
mod checkpoint;
pub mod constitution;
pub mod demo;
mod directory;
#[cfg(feature = "libtorch")]
mod distill;
#[cfg(feature = "libtorch")]
mod dpo;
mod durable;
pub mod engine_build;
mod engine_inspect;
mod engine_verify;
pub mod eval;
#[cfg(feature = "libtorch")]
mod faults;
#[cfg(feature = "libtorch")]
mod generator;
#[cfg(feature = "libtorch")]
mod heartbeat;
#[cfg(feature = "libtorch")]
mod invariants;
#[cfg(feature = "libtorch")]
mod kto;
mod latest;
mod launch;
mod lock;
pub mod machine;
mod metrics;
#[cfg(feature = "libtorch")]
mod mismatch;
#[cfg(feature = "libtorch")]
mod models;
mod observer;
#[cfg(feature = "libtorch")]
mod offline;
#[cfg(feature = "libtorch")]
mod opening;
pub mod page;
#[cfg(feature = "libtorch")]
mod panics;
mod placement;
pub mod plan;
#[cfg(feature = "libtorch")]
mod ppo;
mod progress;
pub mod record;
#[cfg(feature = "libtorch")]
mod reference;
#[cfg(feature = "libtorch")]
mod regression;
#[cfg(feature = "libtorch")]
mod relay;
#[cfg(feature = "libtorch")]
mod reward;
#[cfg(feature = "libtorch")]
mod reward_model;
#[cfg(feature = "libtorch")]
mod reward_server;
#[cfg(feature = "libtorch")]
mod row_pass;
mod samples;
#[cfg(feature = "libtorch")]
mod scorer;
#[cfg(feature = "libtorch")]
mod session;
#[cfg(feature = "libtorch")]
mod sft;
#[cfg(feature = "libtorch")]
mod spin;
#[cfg(feature = "libtorch")]
mod steerlm2;
mod stop;
#[cfg(feature = "libtorch")]
mod stopwatch;
#[cfg(feature = "libtorch")]
mod teach;
#[cfg(feature = "libtorch")]
mod whereabouts;

pub use agreement::Agreement;
#[cfg(feature = "libtorch")]
pub use annotate::{AnnotateOptions, Annotated, Scale, annotate};
pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints, read_queue};
pub use directory::{DirectoryError, RunDirectory};
#[cfg(feature = "libtorch")]
pub use distill::{DistillOutcome, distill};
#[cfg(feature = "libtorch")]
pub use dpo::{DpoOutcome, dpo};
pub use engine_inspect::{Inspection, Refittable, inspect, is_double_plan};
pub use engine_verify::{Row, Verification, Verified, verify};
#[cfg(feature = "libtorch")]
pub use kto::{KtoOutcome, kto};
pub use latest::model_directory;
pub use launch::{Earlier, Launch};
pub use lock::RunLock;
pub use metrics::Metrics;
#[cfg(feature = "libtorch")]
pub use mismatch::{Breach, MismatchError, Threshold};
pub use observer::{Observer, Silent};
#[cfg(feature = "libtorch")]
pub use ppo::{PpoOutcome, ppo};
pub use progress::Progress;
#[cfg(feature = "libtorch")]
pub use regression::{RegressionOutcome, regression};
#[cfg(feature = "libtorch")]
pub use reward_model::{RewardModelOutcome, reward_model};
#[cfg(feature = "libtorch")]
pub use reward_server::{RewardServer, RewardServerOptions};
#[cfg(feature = "libtorch")]
pub use row_pass::RowPass;
#[cfg(feature = "libtorch")]
pub use sft::{SftOutcome, sft};
#[cfg(feature = "libtorch")]
pub use spin::{SpinOutcome, spin};
#[cfg(feature = "libtorch")]
pub use steerlm2::{SteerLm2Outcome, steerlm2};
pub use stop::{Signal, Stop, Stopped};
#[cfg(feature = "libtorch")]
pub use teach::{TeachOptions, teach};
