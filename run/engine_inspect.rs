//! What an engine directory holds. Runs nothing of it.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::{
    model::{ModelSpec, tensorrt_llm::EngineDir},
    rollout::Dtype,
};

/// How the contract double's engine files begin.
const DOUBLE: &[u8] = b"rollforge-double-plan ";

/// What an engine directory holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Version of TensorRT-LLM that built it; empty where it is not said.
    pub version: String,
    /// The model's class upstream.
    pub architecture: String,
    /// The number format.
    pub dtype: Dtype,
    /// The model's shape. The head's tie is not always said.
    pub spec: ModelSpec,
    /// Number of ranks that share each layer.
    pub tensor_parallel: usize,
    /// Longest prompt.
    pub max_input_len: usize,
    /// Longest sequence.
    pub max_seq_len: usize,
    /// Most sequences together.
    pub max_batch_size: usize,
    /// Most tokens in one engine step.
    pub max_num_tokens: usize,
    /// Whether weights can be replaced.
    pub use_refit: bool,
    /// `plugin_config` as it is written.
    pub plugins: Value,
    /// Name and bytes of each file.
    pub files: Vec<(String, u64)>,
    /// What can be refitted, rank by rank, where a library could load the engine.
    pub refittable: Vec<Refittable>,
    /// Why there is nothing about that, where there is not.
    pub not_loaded: Option<String>,
}

/// An engine's own list of tensors against the weight map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refittable {
    /// The rank.
    pub rank: usize,
    /// How many tensors can be refitted.
    pub tensors: usize,
    /// How many of them the weight map has.
    pub mapped: usize,
    /// Names of the map that the engine lacks.
    pub missing: Vec<String>,
    /// Names of the engine that the map lacks: fixed values of the network.
    pub extra: Vec<String>,
}

/// Looks at an engine directory. With `load`, and a library that can, also at the refittable tensors.
///
/// # Errors
/// One line that names the file, and the key.
pub fn inspect(path: &Path, load: bool) -> Result<Inspection> {
    let dir = EngineDir::open(path)?;
    let config: Value = serde_json::from_str(&dir.config_json)
        .with_context(|| format!("cannot read {}", path.join("config.json").display()))?;
    let (refittable, not_loaded) = match load.then(|| refittable(&dir)) {
        None => (Vec::new(), Some("not asked for".into())),
        Some(Ok(found)) => (found, None),
        Some(Err(error)) => (Vec::new(), Some(format!("{error:#}"))),
    };
    let architecture = &config["pretrained_config"]["architecture"];
    let spec = dir.pretrained.spec.clone();
    Ok(Inspection {
        version: dir.version.clone(),
        architecture: architecture.as_str().unwrap_or_default().to_owned(),
        dtype: spec.dtype,
        spec,
        tensor_parallel: dir.pretrained.layout.tensor_parallel,
        max_input_len: dir.build.max_input_len,
        max_seq_len: dir.build.max_seq_len,
        max_batch_size: dir.build.max_batch_size,
        max_num_tokens: dir.build.max_num_tokens,
        use_refit: dir.build.use_refit,
        plugins: config["build_config"]["plugin_config"].clone(),
        files: files(path)?,
        refittable,
        not_loaded,
    })
}

fn files(path: &Path) -> Result<Vec<(String, u64)>> {
    let failed = || format!("cannot read {}", path.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let metadata = entry.metadata().with_context(failed)?;
        files.push((entry.file_name().to_string_lossy().into_owned(), metadata.len()));
    }
    files.sort();
    Ok(files)
}

#[cfg(not(feature = "tensorrt-llm"))]
fn refittable(_: &EngineDir) -> Result<Vec<Refittable>> {
    anyhow::bail!("this build lacks the feature `tensorrt-llm`")
}

#[cfg(feature = "tensorrt-llm")]
fn refittable(dir: &EngineDir) -> Result<Vec<Refittable>> {
    use std::collections::BTreeSet;

    use crate::{
        ffi::tensorrt_llm::{Bindable, Plan},
        model::tensorrt_llm::tensors,
    };
    let library = library_of(dir)?;
    let layout = dir.layout(&dir.pretrained.spec);
    let look = |rank| {
        let listed = Plan::load(library, &dir.engine_file(rank))?.weights()?;
        let has: BTreeSet<String> = listed.into_iter().map(|weight| weight.name).collect();
        let layout = layout.as_named(has.iter().map(String::as_str));
        // The engine knows whether it has a head of its own; the configuration may not say that it is tied.
        let tied = layout.share_embedding;
        let spec = ModelSpec { tie_word_embeddings: tied, ..dir.pretrained.spec.clone() };
        let map = tensors(&spec, &layout, rank)?;
        let wanted: BTreeSet<String> = map.into_iter().map(|tensor| tensor.name).collect();
        Ok(Refittable {
            rank,
            tensors: has.len(),
            mapped: has.intersection(&wanted).count(),
            missing: wanted.difference(&has).cloned().collect(),
            extra: has.difference(&wanted).cloned().collect(),
        })
    };
    (0..layout.tensor_parallel).map(look).collect()
}

/// Picks the library that can load an engine: the double its own, TensorRT-LLM the rest.
#[cfg(feature = "tensorrt-llm")]
fn library_of(dir: &EngineDir) -> Result<crate::ffi::tensorrt_llm::Library> {
    use crate::ffi::tensorrt_llm::Library;
    if is_double_plan(&dir.engine_file(0))? {
        return Ok(Library::Double);
    }
    let linked = Library::TensorRtLlm.describe()?;
    anyhow::ensure!(!linked.is_double, "this build is not linked to TensorRT-LLM");
    Ok(Library::TensorRtLlm)
}

/// Says whether an engine file is the contract double's: its first line says so.
///
/// # Errors
/// When it cannot be read.
pub fn is_double_plan(file: &Path) -> Result<bool> {
    use std::io::Read;
    let mut start = Vec::new();
    let mut open = || File::open(file)?.take(DOUBLE.len() as u64).read_to_end(&mut start);
    let failed = || format!("cannot read {}", file.display());
    open().with_context(failed)?;
    Ok(start == DOUBLE)
}
