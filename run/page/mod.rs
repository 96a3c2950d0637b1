//! What people look at: `report.html`, and the same page live.
//!
//! Everything here reads the files of a run directory and nothing else, so that it works on any run, finished or going,
//! in this process or another. A file that is not there yet is waited for; so is the rest of a line.
//!
//! ```text
//! Recording ─ poll ─> Delta      what the files have more than the last time
//!           ─ snapshot ─> JSON   all of it, bounded; what page.js draws
//! Report     the page with the snapshot in it
//! Dashboard  the page, its snapshot and its deltas on loopback; `/metrics` for Prometheus
//! ```

mod address;
mod curves;
mod html;
mod invariants;
mod journal;
mod kept;
mod overview;
mod prometheus;
mod recording;
mod report;
mod routes;
mod samples;
mod server;
mod tail;
mod timeline;
mod watched;

pub use address::{Address, AddressError};
pub use kept::KeptReport;
pub use report::{Report, ReportError, check_run};
pub use server::{Dashboard, DashboardError};

#[cfg(test)]
mod tests;
