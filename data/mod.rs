//! JSON Lines and Parquet rows into prompts, completions and preference pairs.

mod order;
mod packing;

pub use order::{Cursor, CursorError, Order};
pub use packing::pack;
