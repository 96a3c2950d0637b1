//! What strangers can hand us, one function for each kind of it: parse it, use it a little, and never panic, hang, or
//! allocate more than the input pays for. An error is one line.
//!
//! The fuzz targets call these with bytes that libFuzzer makes up, `tests/corpus.rs` with the corpora.

mod checkpoint;
mod engine;
mod model;
mod text;

use std::{fmt::Display, fs, path::Path};

use tempfile::TempDir;

pub use checkpoint::{manifest, queue};
pub use engine::generation_request;
pub use model::{config_json, safetensors, tokenizer};
pub use text::{chat_template, config, parquet, rows};

/// A kind of input and the function that takes it.
pub type Target = (&'static str, fn(&[u8]));

/// Every kind there is. Each has a file in `targets/` and a folder in `corpus/`.
pub const TARGETS: [Target; 10] = [
    ("chat_template", chat_template),
    ("config", config),
    ("config_json", config_json),
    ("generation_request", generation_request),
    ("manifest", manifest),
    ("parquet", parquet),
    ("queue", queue),
    ("rows", rows),
    ("safetensors", safetensors),
    ("tokenizer", tokenizer),
];

/// Lets panics unwind, of which the libraries for Parquet and tokenizers have some that are caught. libFuzzer's hook would end
/// the process at once; a panic that nobody catches ends it all the same.
#[allow(dead_code, reason = "for libFuzzer alone")]
pub fn let_panics_unwind() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

/// Checks that an error is one line.
fn refused(error: impl Display) {
    let message = error.to_string();
    assert!(!message.contains('\n'), "an error of several lines: {message}");
}

/// Makes a folder with one file in it.
fn folder_with(name: &str, bytes: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder can be made");
    put(folder.path(), name, bytes);
    folder
}

fn put(folder: &Path, name: &str, bytes: &[u8]) {
    fs::write(folder.join(name), bytes).expect("a file can be written");
}

/// Cuts the input at its first zero byte: two texts, of which the second may be missing. `None` if it is not UTF-8.
fn two_texts(data: &[u8]) -> Option<(&str, Option<&str>)> {
    let text = std::str::from_utf8(data).ok()?;
    Some(text.split_once('\0').map_or((text, None), |(first, second)| (first, Some(second))))
}
