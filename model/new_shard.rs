//! A safetensors file in the making: its header first, then one tensor's bytes after the other.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{Error, error::Result};
use crate::rollout::Dtype;

/// A tensor of the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: Dtype,
    pub(super) shape: &'a [usize],
}

impl Entry<'_> {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// A file that waits for the bytes its header promises.
pub(super) struct NewShard {
    path: PathBuf,
    file: BufWriter<File>,
}

impl NewShard {
    /// Writes the header: the tensors, in the order in which their bytes will come.
    pub(super) fn create(path: &Path, entries: &[Entry<'_>]) -> Result<Self> {
        let file = File::create(path).map_err(Error::io("write", path))?;
        let mut new = Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) };
        let header = header(entries);
        new.write(&(header.len() as u64).to_le_bytes())?;
        new.write(header.as_bytes())?;
        Ok(new)
    }

    /// Appends the bytes of the next tensor.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Waits until everything is on the disk.
    pub(super) fn finish(self) -> Result<()> {
        let file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).map_err(Error::io("write", &self.path))
    }
}

fn header(entries: &[Entry<'_>]) -> String {
    let mut header = Map::new();
    // transformers refuses a file that does not say so.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for entry in entries {
        let end = start + entry.bytes();
        let dtype = match entry.dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        };
        let value = json!({"dtype": dtype, "shape": entry.shape, "data_offsets": [start, end]});
        header.insert(entry.name.to_owned(), value);
        start = end;
    }
    let mut text = Value::Object(header).to_string();
    let padded = text.len().next_multiple_of(8);
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text
}
