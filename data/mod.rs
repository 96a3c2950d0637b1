//! JSON Lines and Parquet rows into prompts, completions and preference pairs.

mod config;
mod order;
mod packing;

pub use config::{Columns, DataConfig, OverLong};
pub use order::{Cursor, CursorError, Order};
pub use packing::pack;
