//! Data files into rows.

use std::path::Path;

use super::{Error, Row, jsonl, parquet};

/// Reads a JSON Lines or Parquet file, at most `limit` rows of it.
///
/// # Errors
/// When the file cannot be read, is of another kind, or is broken; the line is named where there is one.
pub fn read_rows(path: &Path, limit: usize) -> Result<Vec<Row>, Error> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "jsonl" | "json" | "ndjson" => jsonl::read(path, limit),
        "parquet" => parquet::read(path, limit),
        _ => Err(Error::File {
            path: path.into(),
            message: "the name must end in .jsonl, .json, .ndjson or .parquet".into(),
        }),
    }
}
