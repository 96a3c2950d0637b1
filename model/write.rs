//! A model into a directory that transformers loads as it is: complete, or not there at all.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Map, Value, json};

use super::{
    Error, GenerationConfig, ModelSpec,
    checkpoint::{INDEX, SINGLE},
    config_out,
    error::Result,
    files,
};
use crate::{
    ffi::memory::Reading,
    rollout::{Dtype, WeightTensor, Weights},
};

/// How long to wait for an optimizer step to finish before its weights are read.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Files that belong to a tokenizer and travel with the weights.
const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "vocab.txt",
];

/// What is written beside config and weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companions {
    /// Special ids and sampling defaults.
    pub generation: GenerationConfig,
    /// Further files by name, the tokenizer's above all.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Companions {
    /// Reads the companions of a model directory: generation config, tokenizer, chat template.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of(dir: &Path) -> Result<Self> {
        Ok(Self { generation: GenerationConfig::open(dir)?, files: Self::files_of(dir)? })
    }

    /// Reads the files of a directory's tokenizer.
    pub(super) fn files_of(dir: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for name in TOKENIZER_FILES {
            if let Some(bytes) = files::read_if_there(&dir.join(name))? {
                found.insert(name.to_owned(), bytes);
            }
        }
        Ok(found)
    }
}

/// How a model directory is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// Replace a directory that is there. Default: refuse.
    pub replace: bool,
    /// Weights beyond this size are split over several files. Default: 5 GB, as transformers does.
    pub shard_bytes: usize,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { replace: false, shard_bytes: 5_000_000_000 }
    }
}

/// Writes a complete model directory; see [`write_model_with`].
///
/// # Errors
/// When the directory exists, cannot be written, or the weights are not those of the model.
pub fn write_model(
    dir: &Path,
    spec: &ModelSpec,
    weights: &Weights,
    companions: &Companions,
) -> Result<()> {
    write_model_with(dir, spec, weights, companions, &WriteOptions::default())
}

/// Writes a complete model directory under a temporary name beside it, syncs it to the disk and renames it.
///
/// # Errors
/// When the directory exists and may not be replaced, cannot be written, or the weights are not those of the model.
/// Then nothing is left behind, and a directory that was to be replaced is as it was.
pub fn write_model_with(
    dir: &Path,
    spec: &ModelSpec,
    weights: &Weights,
    companions: &Companions,
    options: &WriteOptions,
) -> Result<()> {
    spec.check()?;
    let coverage = weights.check_coverage(&spec.tensors());
    coverage.map_err(|reason| Error::Coverage { path: dir.to_owned(), reason })?;
    if dir.exists() && !options.replace {
        return Err(Error::Exists { path: dir.to_owned() });
    }
    let reading = weights.lease().read(PATIENCE);
    let reading = reading.ok_or(Error::Busy { seconds: PATIENCE.as_secs() })?;
    let parent = parent(dir);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let temporary = temporary_beside(dir, &parent)?;
    write_files(temporary.path(), spec, companions, weights)?;
    write_weights(temporary.path(), weights, &reading, options.shard_bytes)?;
    sync_dir(temporary.path())?;
    put_in_place(temporary, dir, &parent)?;
    sync_dir(&parent)
}

fn parent(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn temporary_beside(dir: &Path, parent: &Path) -> Result<tempfile::TempDir> {
    let name = dir.file_name().ok_or_else(|| Error::file(dir, "is not the name of a directory"))?;
    let prefix = format!(".{}.", name.to_string_lossy());
    tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(parent)
        .map_err(Error::io("write into", parent))
}

fn write_files(
    dir: &Path,
    spec: &ModelSpec,
    companions: &Companions,
    weights: &Weights,
) -> Result<()> {
    // Tensors may differ; what most consumers read is the embedding's.
    let dtype = weights.get("model.embed_tokens.weight").map_or(spec.dtype, |tensor| tensor.dtype);
    let config = config_out::to_json(spec, dtype, &companions.generation);
    write_json(&dir.join("config.json"), &config)?;
    write_json(&dir.join("generation_config.json"), &companions.generation.to_json())?;
    for (name, bytes) in &companions.files {
        files::write_synced(&dir.join(name), bytes)?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    files::write_synced(path, files::pretty(value).as_bytes())
}

/// Tensors of one file, in the order of its bytes.
type Group<'a> = Vec<(&'a str, &'a WeightTensor)>;

fn write_weights(
    dir: &Path,
    weights: &Weights,
    reading: &Reading,
    shard_bytes: usize,
) -> Result<()> {
    let groups = groups(weights, shard_bytes);
    if let [only] = groups.as_slice() {
        return write_shard(&dir.join(SINGLE), only, reading);
    }
    let mut places = Map::new();
    for (number, group) in groups.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, groups.len());
        write_shard(&dir.join(&name), group, reading)?;
        places.extend(group.iter().map(|(tensor, _)| ((*tensor).to_owned(), json!(name))));
    }
    let index = json!({"metadata": {"total_size": weights.bytes()}, "weight_map": places});
    write_json(&dir.join(INDEX), &index)
}

fn groups(weights: &Weights, shard_bytes: usize) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = vec![vec![]];
    let mut room = shard_bytes;
    for (name, tensor) in weights.iter() {
        let last = groups.last_mut().expect("there is always one");
        let bytes = tensor.memory.len();
        if bytes > room && !last.is_empty() {
            groups.push(vec![(name, tensor)]);
            room = shard_bytes.saturating_sub(bytes);
        } else {
            last.push((name, tensor));
            room = room.saturating_sub(bytes);
        }
    }
    for group in &mut groups {
        // Wider numbers first, so that every tensor is aligned to its own numbers.
        group.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype.size()));
    }
    groups
}

/// Writes one safetensors file: length of the header, header, tensors.
fn write_shard(path: &Path, group: &Group<'_>, reading: &Reading) -> Result<()> {
    let header = header(group);
    let write = || {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for (_, tensor) in group {
            file.write_all(tensor.memory.bytes(reading))?;
        }
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(Error::io("write", path))
}

fn header(group: &Group<'_>) -> String {
    let mut header = Map::new();
    // transformers refuses a file that does not say so.
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    let mut start = 0;
    for (name, tensor) in group {
        let end = start + tensor.memory.len();
        let dtype = match tensor.dtype {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::Bf16 => "BF16",
        };
        let entry = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        header.insert((*name).to_owned(), entry);
        start = end;
    }
    let mut text = Value::Object(header).to_string();
    let padded = text.len().next_multiple_of(8);
    text.extend(std::iter::repeat_n(' ', padded - text.len()));
    text
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(Error::io("sync", dir))
}

/// Renames the finished directory. An old one is first moved aside, and back again should the rename fail.
fn put_in_place(temporary: tempfile::TempDir, dir: &Path, parent: &Path) -> Result<()> {
    let aside = match dir.exists() {
        true => Some(temporary_beside(dir, parent)?),
        false => None,
    };
    let old = aside.as_ref().map(|aside| aside.path().join("old"));
    if let Some(old) = &old {
        fs::rename(dir, old).map_err(Error::io("replace", dir))?;
    }
    match fs::rename(temporary.path(), dir) {
        Ok(()) => {
            // Renamed away: nothing is left for the guard to remove.
            let _ = temporary.keep();
            Ok(())
        }
        Err(error) => {
            if let Some(old) = &old {
                fs::rename(old, dir).map_err(Error::io("restore", dir))?;
            }
            Err(Error::io("rename into place", dir)(error))
        }
    }
}
