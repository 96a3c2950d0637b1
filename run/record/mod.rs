//! What a run writes down as it goes, beside its metrics and checkpoints: a journal, a trace, TensorBoard's events, and
//! samples of what was generated.

mod events;
mod journal;
mod lines;
mod messages;
mod ratios;
#[cfg(feature = "libtorch")]
mod samples;
mod trace;

pub use events::EventFile;
pub use journal::{Entry, EntryKind, Journal};
pub use ratios::Ratios;
#[cfg(feature = "libtorch")]
pub(super) use samples::{SampleRow, choose};
pub use trace::{Lane, Span, Trace};
