//! What a run writes down as it goes, beside its metrics and checkpoints: a journal and a trace.

mod journal;
mod lines;
mod trace;

pub use journal::{Entry, EntryKind, Journal};
pub use trace::{Lane, Span, Trace};
