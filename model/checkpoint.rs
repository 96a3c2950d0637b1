//! The weights of a model directory: one safetensors file or several under an index, memory-mapped.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    path::{Component, Path, PathBuf},
};

use rayon::prelude::*;

use super::{
    Error, Head, ModelSpec, config_json, convert,
    error::Result,
    files,
    shard::{Entry, Shard},
};
use crate::{
    ffi::memory::{Lease, Memory},
    rollout::{CoverageError, Dtype, WeightTensor, WeightVersion, Weights},
};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// An opened checkpoint: the files are mapped and their headers checked, no number has been read.
pub struct Checkpoint {
    dir: PathBuf,
    spec: ModelSpec,
    shards: Vec<Shard>,
    /// Which shard holds a tensor.
    places: BTreeMap<String, usize>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {} tensors)", self.dir.display(), self.places.len())
    }
}

impl Checkpoint {
    /// Opens a Hugging Face model directory and checks that its tensors are exactly those of its `config.json`.
    ///
    /// # Errors
    /// One line that names the file: a model of an unsupported kind, a truncated or corrupt file, a missing, extra or
    /// misshapen tensor.
    ///
    /// # Example
    /// ```no_run
    /// use rollforge::{model::Checkpoint, rollout::Dtype};
    /// let checkpoint = Checkpoint::open("models/tiny".as_ref())?;
    /// let weights = checkpoint.weights(Dtype::F32)?;
    /// println!("{} bytes", weights.bytes());
    /// # Ok::<(), rollforge::model::Error>(())
    /// ```
    pub fn open(dir: &Path) -> Result<Self> {
        let config = config_json::open(dir)?;
        let (shards, places) = open_shards(dir)?;
        let mut checkpoint = Self { dir: dir.to_owned(), spec: config.spec, shards, places };
        checkpoint.check_coverage()?;
        if !config.says_dtype {
            checkpoint.spec.dtype = checkpoint.entry(EMBEDDING)?.1.dtype;
        }
        Ok(checkpoint)
    }

    /// Returns the model's shape.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Returns the directory it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns every tensor in the wanted number format, as version 0.
    ///
    /// A tensor that is in this format already is the memory map itself; others are converted. Every number is read
    /// once.
    ///
    /// # Errors
    /// When a number is NaN or infinite, or becomes so in the wanted format; names file, tensor and index.
    pub fn weights(&self, dtype: Dtype) -> Result<Weights> {
        let lease = Lease::default();
        let wanted = self.spec.tensors();
        let tensors: BTreeMap<String, WeightTensor> = wanted
            .into_par_iter()
            .map(|spec| Ok((spec.name.clone(), self.tensor(&spec.name, dtype, &lease)?)))
            .collect::<Result<_>>()?;
        self.check_tied_head()?;
        Ok(Weights::new(WeightVersion::default(), lease, tensors))
    }

    fn tensor(&self, name: &str, dtype: Dtype, lease: &Lease) -> Result<WeightTensor> {
        let (shard, entry) = self.entry(name)?;
        let bytes = &shard.map[entry.range.clone()];
        let bad = |place: usize, problem: &str| {
            Err(Error::tensor(&shard.path, name, format!("{problem} at index {place}")))
        };
        if let Some(place) = convert::first_not_finite(bytes, entry.dtype) {
            return bad(place, "has a NaN or infinite number");
        }
        if entry.dtype == dtype && convert::is_aligned(bytes, dtype) {
            let memory = Memory::from_map(shard.map.clone(), entry.range, lease);
            return Ok(WeightTensor { dtype, shape: entry.shape, memory });
        }
        let memory = convert::convert(bytes, entry.dtype, dtype, lease);
        // Only a narrower exponent can overflow; bf16 rounds the largest f32 numbers up to infinity.
        if dtype != Dtype::F32 && dtype != entry.dtype {
            let reading =
                lease.read(std::time::Duration::ZERO).expect("nobody writes to a new lease");
            if let Some(place) = convert::first_not_finite(memory.bytes(&reading), dtype) {
                return bad(place, &format!("has a number too large for {dtype}"));
            }
        }
        Ok(WeightTensor { dtype, shape: entry.shape, memory })
    }

    fn entry(&self, name: &str) -> Result<(&Shard, Entry)> {
        let place = self.places.get(name);
        let place = place.ok_or_else(|| Error::tensor(&self.dir, name, "is missing"))?;
        let shard = &self.shards[*place];
        Ok((shard, shard.entry(name)?))
    }

    fn check_coverage(&self) -> Result<()> {
        let mut error = CoverageError { missing: vec![], extra: vec![], misshapen: vec![] };
        let expected = self.spec.tensors();
        for spec in &expected {
            if !self.places.contains_key(&spec.name) {
                error.missing.push(spec.name.clone());
                continue;
            }
            let (_, entry) = self.entry(&spec.name)?;
            if entry.shape != spec.shape {
                error.misshapen.push((spec.name.clone(), spec.shape.clone(), entry.shape));
            }
        }
        let known: HashSet<&str> = expected.iter().map(|spec| spec.name.as_str()).collect();
        let is_extra = |name: &&String| !known.contains(name.as_str()) && !self.is_harmless(name);
        error.extra = self.places.keys().filter(is_extra).cloned().collect();
        if error.missing.is_empty() && error.extra.is_empty() && error.misshapen.is_empty() {
            return Ok(());
        }
        // With one file the message can name it; with several the directory is the best there is.
        let path = match self.shards.as_slice() {
            [only] => only.path.clone(),
            _ => self.dir.clone(),
        };
        Err(Error::Coverage { path, reason: error })
    }

    /// Old checkpoints store what can be computed: rotary frequencies, and the head that is tied to the embedding.
    fn is_harmless(&self, name: &str) -> bool {
        name.ends_with(".rotary_emb.inv_freq") || (name == LM_HEAD && self.has_tied_head())
    }

    fn has_tied_head(&self) -> bool {
        self.spec.head == Head::LanguageModel && self.spec.tie_word_embeddings
    }

    fn check_tied_head(&self) -> Result<()> {
        if !self.has_tied_head() || !self.places.contains_key(LM_HEAD) {
            return Ok(());
        }
        let (shard, head) = self.entry(LM_HEAD)?;
        let (other, embedding) = self.entry(EMBEDDING)?;
        let equal = head.dtype == embedding.dtype
            && shard.map[head.range.clone()] == other.map[embedding.range.clone()];
        if equal {
            return Ok(());
        }
        let problem = format!("differs from {EMBEDDING}, but tie_word_embeddings is true");
        Err(Error::tensor(&shard.path, LM_HEAD, problem))
    }
}

type Shards = (Vec<Shard>, BTreeMap<String, usize>);

fn open_shards(dir: &Path) -> Result<Shards> {
    // transformers, too, prefers the single file.
    let single = dir.join(SINGLE);
    if single.exists() {
        let shard = Shard::open(single)?;
        let places = shard.names().into_iter().map(|name| (name, 0)).collect();
        return Ok((vec![shard], places));
    }
    let path = dir.join(INDEX);
    let Some(index) = files::object_if_there(&path)? else {
        let pickled = dir.join("pytorch_model.bin").exists()
            || dir.join("pytorch_model.bin.index.json").exists();
        let hint =
            if pickled { "; pickled weights must be saved as safetensors first" } else { "" };
        return Err(Error::file(dir, format!("has neither {SINGLE} nor {INDEX}{hint}")));
    };
    let Some(map) = index.get("weight_map").and_then(|map| map.as_object()) else {
        return Err(Error::file(&path, "has no weight_map"));
    };
    let mut by_file: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in map {
        let file = file.as_str().filter(|file| is_plain_name(file)).ok_or_else(|| {
            Error::tensor(&path, tensor, format!("must lie in a file beside the index, got {file}"))
        })?;
        by_file.entry(file).or_default().insert(tensor.clone());
    }
    let mut shards = Vec::new();
    let mut places = BTreeMap::new();
    for (number, (file, promised)) in by_file.into_iter().enumerate() {
        let shard_path = dir.join(file);
        if !shard_path.exists() {
            return Err(Error::file(
                &path,
                format!("names {}, which is missing", file.escape_debug()),
            ));
        }
        let shard = Shard::open(shard_path)?;
        check_against_index(&shard, &promised, &path)?;
        places.extend(promised.into_iter().map(|name| (name, number)));
        shards.push(shard);
    }
    Ok((shards, places))
}

fn check_against_index(shard: &Shard, promised: &BTreeSet<String>, index: &Path) -> Result<()> {
    let held: BTreeSet<String> = shard.names().into_iter().collect();
    if let Some(name) = promised.difference(&held).next() {
        return Err(Error::tensor(
            &shard.path,
            name,
            format!("is missing, but {} says it is here", index.display()),
        ));
    }
    match held.difference(promised).next() {
        Some(name) => {
            Err(Error::tensor(&shard.path, name, format!("is not in {}", index.display())))
        }
        None => Ok(()),
    }
}

/// Says whether a name stays within its directory.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        && !name.contains(['/', '\\'])
}
