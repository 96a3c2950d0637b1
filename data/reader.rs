//! Data files into rows.

use std::path::Path;

use super::{Error, Row, jsonl::Lines, parquet::Records};

/// The rows of a JSON Lines or Parquet file, one after the other: the file is never in memory as a whole.
///
/// An item is an error where a line or the file is broken. After a broken line the lines after it come.
pub enum Rows {
    /// JSON Lines.
    Lines(Lines),
    /// Parquet.
    Records(Records),
}

impl Iterator for Rows {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Lines(lines) => lines.next(),
            Self::Records(records) => records.next(),
        }
    }
}

/// Opens a JSON Lines or Parquet file, as its name says.
///
/// # Errors
/// When it cannot be opened or is of another kind.
pub fn open_rows(path: &Path) -> Result<Rows, Error> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "jsonl" | "json" | "ndjson" => Lines::open(path).map(Rows::Lines),
        "parquet" => Records::open(path).map(Rows::Records),
        _ => Err(Error::File {
            path: path.into(),
            message: "the name must end in .jsonl, .json, .ndjson or .parquet".into(),
        }),
    }
}

/// Reads a JSON Lines or Parquet file, at most `limit` rows of it.
///
/// # Errors
/// When the file cannot be read, is of another kind, or is broken; the line is named where there is one.
pub fn read_rows(path: &Path, limit: usize) -> Result<Vec<Row>, Error> {
    open_rows(path)?.take(limit).collect()
}
