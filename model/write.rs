//! A model into a directory that transformers loads as it is: complete, or not there at all.

use std::{collections::BTreeMap, path::Path, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    Error, GenerationConfig, ModelSpec,
    checkpoint::{INDEX, SINGLE},
    config_out,
    error::Result,
    files,
    new_dir::write_dir,
    new_shard::{Entry, NewShard},
};
use crate::{
    ffi::memory::Reading,
    rollout::{WeightTensor, Weights},
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
    write_dir(dir, options.replace, |temporary| {
        let reading = weights.lease().read(PATIENCE);
        let reading = reading.ok_or(Error::Busy { seconds: PATIENCE.as_secs() })?;
        write_files(temporary, spec, companions, weights)?;
        write_weights(temporary, weights, &reading, options.shard_bytes)
    })
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

fn write_shard(path: &Path, group: &Group<'_>, reading: &Reading) -> Result<()> {
    let entries: Vec<Entry<'_>> = group
        .iter()
        .map(|(name, tensor)| Entry { name, dtype: tensor.dtype, shape: &tensor.shape })
        .collect();
    let mut file = NewShard::create(path, &entries)?;
    for (_, tensor) in group {
        file.write(tensor.memory.bytes(reading))?;
    }
    file.finish()
}
