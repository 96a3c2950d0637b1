//! What a run can go on from: checkpoints that are whole or not there.
//!
//! ```text
//! checkpoints/step_4/
//!   policy/ value/ reward_model/   model directories, as transformers loads them
//!   trainer/state.json             counters, and all that is neither a weight nor a moment
//!   trainer/queue.jsonl            PPO: what has been answered and not trained on, and which tickets are out
//!   trainer/NAME.weights.safetensors, NAME.exp_avg.safetensors, NAME.exp_avg_sq.safetensors
//!   manifest.json                  length and BLAKE3 of every other file, the step, the score; written last
//! LATEST                           checkpoints/step_4
//! ```
//!
//! A checkpoint is written under another name, its files and folders synced, renamed, and named in `LATEST`; only then
//! are others deleted. A kill at any moment leaves `LATEST` naming a whole one. What a kill leaves under other names is
//! deleted at the next start.

mod error;
mod manifest;
mod queue;
mod retention;
#[cfg(feature = "libtorch")]
mod state;
mod store;

pub use error::CheckpointError;
pub use queue::read_queue;
pub(super) use queue::{restore_queue, save_queue};
pub(super) use retention::Retention;
#[cfg(feature = "libtorch")]
pub(super) use state::{Resumable, restore, save};
pub use store::{Checkpoint, Checkpoints};
