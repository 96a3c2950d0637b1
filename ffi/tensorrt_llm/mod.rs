//! TensorRT-LLM's Executor, and whatever keeps the same contract (`contract.h`).
//!
//! # Who speaks what
//!
//! `contract.h` is plain C: a table of functions, implemented by the shim over TensorRT-LLM (`shim/`) and by the contract
//! double (`double/`). bindgen reads its structs and constants (`contract.rs`), so that both sides agree on every byte.
//! Nobody in Rust calls the table: `bridge.h` wraps it in C++ owners, which cxx brings over (`bridge.rs`). The files beside
//! this one are the face: plain Rust, no `unsafe` outside. Where TensorRT-LLM is not installed the shim is compiled against
//! `declarations/` and linked to `stand_in/`, so all of this runs everywhere.
//!
//! # Threads
//!
//! An executor, its captured engine and its refitter belong to one thread at a time; which one may change between calls.
//! So [`Executor`] and [`Plan`] are `Send`, not `Sync`, and every call takes `&mut self`. The generation runs on threads
//! that the library starts and stops itself; none of them ever calls into Rust. A failure's sentence is kept for each thread
//! and fetched by the bridge right after the call, before Rust runs again.
//!
//! # Ownership
//!
//! | what | who frees it, and when |
//! |------|------------------------|
//! | executor, plan | the C++ owner that the Rust value holds; its refitter goes first, being the later member |
//! | captured engine | the executor; nobody holds it longer than the executor's refitter |
//! | responses, statistics, serialised plans | the bridge, after they were copied into Rust |
//! | requests, configurations, paths, plans in memory | Rust; they are read during the call only |
//! | memory bound for a refit | Rust: a clone of the [`Memory`](super::memory::Memory) is kept until the name is bound anew, and is dropped after the refitter |
//!
//! # Exceptions and panics
//!
//! No implementation lets an exception out of its table. A status that is no success is thrown by the bridge, and so may be
//! a `bad_alloc` of its own; `rust::behavior::trycatch` (`bridge.h`) turns whatever it is into an `Err`, which becomes an
//! [`Error`] with the [`Status`]. Rust is never called from C++, so no panic can cross. Numbers that a newer library may send
//! (statuses, finish reasons, number formats) end in an `Other`.
//!
//! # What each `unsafe` promises
//!
//! - *Pointers live through the call* (`executor.rs`): those of a request and a configuration are borrowed from vectors that
//!   the calling function holds.
//! - *Bound memory stays, and is at rest during a commit* (`refit.rs`): `Bound` holds it, and asserts that its lease
//!   is among the readings.
//! - *Device work comes in order* (`streams.rs`): the refit's stream awaits an event behind the trainer's queued work.
//! - *One thread at a time* (`bridge.rs`): `Send` for the two owners, because every method takes them as `Pin<&mut _>`.
//! - *Same bytes* (`contract.rs`): cxx and bindgen mean the same struct.

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
