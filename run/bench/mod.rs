//! Measurements of whole pieces of the machine, for `rollforge bench`.
//!
//! Each bench settles on its cores, measures what these can do at most, then itself and its peers by turns, and ends in a
//! [`Report`].

mod engine;
mod limits;
mod peer;
mod plot;
#[cfg(feature = "libtorch")]
mod ppo;
mod queue;
mod refit;
mod report;
mod row;
mod shape;
mod statistics;
mod subject;
mod table;
#[cfg(feature = "libtorch")]
mod train;
mod turns;

pub use engine::{EngineBench, engine};
pub use limits::Limits;
pub use peer::Peer;
pub use plot::plot;
#[cfg(feature = "libtorch")]
pub use ppo::{PpoBench, ppo};
pub use queue::{QueueBench, pass, queue};
pub use refit::{RefitBench, refit};
pub use report::{Agreement, PeerRows, Ratio, Report};
pub use row::{Row, Unit};
pub use shape::Shape;
pub use statistics::Measurements;
pub use subject::Subject;
pub use table::{number, table};
#[cfg(feature = "libtorch")]
pub use train::{TrainBench, train};
pub use turns::Turns;
