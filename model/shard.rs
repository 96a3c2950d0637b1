//! One safetensors file: its header checked before anything in it is believed.

use std::{ops::Range, path::PathBuf, sync::Arc};

use memmap2::Mmap;
use safetensors::tensor::Metadata;

use super::{Error, error::Result};
use crate::{ffi::memory::Memory, rollout::Dtype};

/// The format's own limit on its header.
const LARGEST_HEADER: u64 = 100_000_000;

/// A mapped safetensors file.
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) map: Arc<Mmap>,
    data: usize,
    header: Metadata,
}

/// Where a tensor lies in its file.
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

impl Shard {
    /// Maps a file and checks its header: no offset points outside the file, none overlap, all fit dtype and shape.
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let map = Memory::map_file(&path).map_err(Error::io("open", &path))?;
        let fail = |problem: String| Err(Error::file(&path, problem));
        let Some(prefix) = map.first_chunk::<8>() else {
            return fail(format!("is truncated: {} bytes are too few for safetensors", map.len()));
        };
        let (length, rest) = (u64::from_le_bytes(*prefix), map.len() as u64 - 8);
        if length > LARGEST_HEADER || length > rest {
            return fail(format!(
                "is truncated or not safetensors: it claims a header of {length} bytes, {rest} follow"
            ));
        }
        let data = 8 + length as usize;
        let header: Metadata = match serde_json::from_slice(&map[8..data]) {
            Ok(header) => header,
            Err(error) => return fail(format!("has a corrupt header: {}", brief(&error))),
        };
        let (promised, held) = (header.data_len(), map.len() - data);
        if promised != held {
            let kind = if promised > held { "is truncated" } else { "has trailing bytes" };
            return fail(format!(
                "{kind}: the header describes {promised} bytes of tensors, the file holds {held}"
            ));
        }
        Ok(Self { path, map, data, header })
    }

    /// Lists the tensors.
    pub(super) fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Says whether a tensor is of floats, which alone [`Shard::entry`] knows.
    pub(super) fn is_float(&self, name: &str) -> bool {
        self.header.info(name).is_some_and(|info| float(info.dtype).is_some())
    }

    /// Returns where a tensor lies.
    ///
    /// # Errors
    /// When there is no such tensor or its number format is not a float of 16 or 32 bits.
    pub(super) fn entry(&self, name: &str) -> Result<Entry> {
        let missing = || Error::tensor(&self.path, name, "is missing");
        let info = self.header.info(name).ok_or_else(missing)?;
        let dtype = float(info.dtype).ok_or_else(|| {
            let problem = format!(
                "is of dtype {}, which is not supported; supported: F32, F16, BF16",
                info.dtype
            );
            Error::tensor(&self.path, name, problem)
        })?;
        let (start, end) = info.data_offsets;
        let range = self.data + start..self.data + end;
        Ok(Entry { dtype, shape: info.shape.clone(), range })
    }
}

fn float(dtype: safetensors::Dtype) -> Option<Dtype> {
    match dtype {
        safetensors::Dtype::F32 => Some(Dtype::F32),
        safetensors::Dtype::F16 => Some(Dtype::F16),
        safetensors::Dtype::BF16 => Some(Dtype::Bf16),
        _ => None,
    }
}

/// Cuts the list of every dtype in the world from serde's message.
fn brief(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(", expected one of").next().unwrap_or_default();
    text.replace("unknown variant", "unknown dtype").replace('\n', " ")
}
