//! What can be wrong with the data.

use std::{io, path::PathBuf};

/// Data that cannot be used. One line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is of no kind that is known, or broken as a whole.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A line is not what the format demands.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1; in Parquet the row.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
    /// A column that the task needs is nowhere in the data.
    #[error("{}: no column {wanted}; found {found}{hint}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// The column, or the alternatives.
        wanted: String,
        /// The columns there are.
        found: String,
        /// What was probably meant.
        hint: String,
    },
    /// Completions are to be ended, and nothing says how.
    #[error(
        "data.append_eos must be false where neither tokenizer nor model names an EOS token, got true"
    )]
    NoEos,
    /// No row is left that could be used.
    #[error("nothing to use: {0}")]
    NothingLeft(String),
}
