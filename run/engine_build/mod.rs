//! From a model to a TensorRT-LLM engine directory: checkpoint, the user's Python, and a cache of what was built.

mod cache;
mod recipe;
#[cfg(test)]
mod tests;
mod toolchain;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

pub use cache::{Cache, Claim, Looked};
pub use recipe::{Limits, Recipe};
pub use toolchain::{BuildCall, Python, SCRIPT, Toolchain};

use super::{durable::sync_tree, machine, model_directory};
use crate::{
    model::{
        Model, ModelSpec,
        tensorrt_llm::{CheckpointOptions, EngineDir, Layout, tensors, write_checkpoint},
        write_dir,
    },
    rollout::Dtype,
};

/// What is to be built.
#[derive(Clone, Debug)]
pub struct EngineBuild {
    /// A model directory, or a run directory: then the policy as it was last saved.
    pub model: PathBuf,
    /// The directory to write. Must not be there, or be empty.
    pub out: PathBuf,
    /// The number format.
    pub dtype: Dtype,
    /// How many GPUs share each layer.
    pub tensor_parallel: usize,
    /// Whether up and gate become one tensor.
    pub fused_mlp: bool,
    /// The sizes, where they are given.
    pub sizes: Sizes,
    /// What becomes of it.
    pub product: Product,
}

/// The sizes of an engine; what is not given follows from the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Most sequences computed together. Default 64.
    pub max_batch: Option<usize>,
    /// Longest prompt. Default: `max_seq`.
    pub max_input: Option<usize>,
    /// Longest sequence, prompt and completion together. Default: the model's context.
    pub max_seq: Option<usize>,
    /// Most tokens in one engine step. Default 8192.
    pub max_num_tokens: Option<usize>,
}

/// What is made of a model.
#[derive(Clone, Debug)]
pub enum Product {
    /// A TensorRT-LLM checkpoint: `config.json` and `rankN.safetensors`.
    Checkpoint,
    /// An engine.
    Engine {
        /// The Python that has TensorRT-LLM.
        python: Python,
        /// Where engines are kept.
        cache: Option<Cache>,
        /// Longest a build may take.
        deadline: Duration,
    },
    /// An engine of the contract double.
    #[cfg(feature = "tensorrt-llm")]
    Double,
}

/// What came of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The directory.
    pub path: PathBuf,
    /// The key under which the engine was found in the cache, if it was.
    pub cached: Option<String>,
}

/// Builds. `on_line` hears what the Python says.
///
/// # Errors
/// One line: a model or a size that cannot be, a Python without TensorRT-LLM, a build that failed. Nothing half-built
/// stays, but for the log of a failed build, which the error names.
pub fn build(request: &EngineBuild, on_line: &mut dyn FnMut(&str)) -> Result<Built> {
    let job = Job::new(request)?;
    let cached = match &request.product {
        Product::Checkpoint => {
            job.checkpoint(&request.out)?;
            None
        }
        Product::Engine { python, cache, deadline } => {
            let toolbox = Toolbox { python, cache: cache.as_ref(), deadline: *deadline };
            let mut cached = None;
            write_dir(&request.out, false, |staged| {
                let place = Place { out: &request.out, staged };
                cached = job.engine(&toolbox, &place, on_line)?;
                sync_tree(staged).with_context(|| format!("cannot write {}", staged.display()))
            })?;
            cached
        }
        #[cfg(feature = "tensorrt-llm")]
        Product::Double => {
            write_dir(&request.out, false, |staged| job.double(staged))?;
            None
        }
    };
    Ok(Built { path: request.out.clone(), cached })
}

/// What builds engines, and where they are kept.
struct Toolbox<'a> {
    python: &'a Python,
    cache: Option<&'a Cache>,
    deadline: Duration,
}

/// The directory to write, and where it is until it is whole: beside it.
struct Place<'a> {
    out: &'a Path,
    staged: &'a Path,
}

/// A request that can be done, as far as can be known before.
struct Job {
    model: Model,
    /// Under the engine's number format.
    spec: ModelSpec,
    options: CheckpointOptions,
    fused_mlp: bool,
    limits: Limits,
}

impl Job {
    fn new(request: &EngineBuild) -> Result<Self> {
        let model = Model::open(&model_directory(&request.model))?;
        let spec = ModelSpec { dtype: request.dtype, ..model.spec().clone() };
        let options = CheckpointOptions {
            layout: Layout::checkpoint(request.tensor_parallel),
            dtype: request.dtype,
            replace: false,
        };
        options.layout.check(&spec)?;
        let limits = Limits::new(&request.sizes, &spec)?;
        Ok(Self { model, spec, options, fused_mlp: request.fused_mlp, limits })
    }

    /// Writes the TensorRT-LLM checkpoint.
    fn checkpoint(&self, folder: &Path) -> Result<()> {
        let weights = self.model.checkpoint.weights(self.spec.dtype)?;
        Ok(write_checkpoint(folder, &self.spec, &weights, &self.options)?)
    }

    /// Writes an engine of the contract double into a directory that is there.
    #[cfg(feature = "tensorrt-llm")]
    fn double(&self, folder: &Path) -> Result<()> {
        use crate::engine::tensorrt_llm::{DoubleBuild, write_double_engine};
        let ranks = self.options.layout.tensor_parallel;
        ensure!(ranks == 1, "--tp must be 1 with --double, got {ranks}");
        let build = DoubleBuild {
            dtype: self.spec.dtype,
            fused_mlp: self.fused_mlp,
            max_batch_size: self.limits.max_batch,
            max_num_tokens: self.limits.max_num_tokens,
            max_seq_len: self.limits.max_seq,
            ..DoubleBuild::default()
        };
        let weights = self.model.checkpoint.weights(self.spec.dtype)?;
        Ok(write_double_engine(folder, &self.spec, &weights, &build)?)
    }

    /// Puts an engine into the staged directory: a cached one, or a new one, which the cache then keeps.
    fn engine(
        &self,
        toolbox: &Toolbox<'_>,
        place: &Place<'_>,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<Option<String>> {
        let recipe = self.recipe(toolbox.python.probe()?)?;
        ensure!(
            recipe.toolchain.tensorrt_llm.is_some(),
            "{} (Python {}) has no module tensorrt_llm: install tensorrt-llm 1.2.1 there, or name another with --python",
            toolbox.python.0.display(),
            recipe.toolchain.python
        );
        let key = recipe.key();
        let claim = match toolbox.cache.map(|cache| cache.look(&key)).transpose()? {
            Some(Looked::Hit(entry)) => {
                cache::link_files(&entry, place.staged)?;
                return Ok(Some(key));
            }
            Some(Looked::Miss(claim)) => Some(claim),
            None => None,
        };
        self.run_python(toolbox, place, on_line)?;
        let file = place.staged.join("recipe.json");
        fs::write(&file, recipe.to_json())
            .with_context(|| format!("cannot write {}", file.display()))?;
        if let Some(claim) = claim {
            claim.keep(place.staged)?;
        }
        Ok(None)
    }

    fn recipe(&self, toolchain: Toolchain) -> Result<Recipe<'_>> {
        let shapes = tensors(&self.spec, &self.options.layout, 0)?.into_iter();
        Ok(Recipe {
            spec: &self.spec,
            layout: shapes.map(|tensor| (tensor.name, tensor.shape)).collect(),
            tensor_parallel: self.options.layout.tensor_parallel,
            fused_mlp: self.fused_mlp,
            limits: self.limits,
            toolchain,
            gpus: machine::gpus(),
        })
    }

    fn run_python(
        &self,
        toolbox: &Toolbox<'_>,
        place: &Place<'_>,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<()> {
        // Beside the result: a checkpoint is as large as the model, and the temporary folder may be small.
        let parent = place.staged.parent().unwrap_or(Path::new("."));
        let work = TempDir::with_prefix_in(".engine-build.", parent)
            .with_context(|| format!("cannot write {}", parent.display()))?;
        let checkpoint = work.path().join("checkpoint");
        self.checkpoint(&checkpoint)?;
        let mut log = place.out.as_os_str().to_owned();
        log.push(".build.log");
        let log = PathBuf::from(log);
        let call = BuildCall {
            arguments: self.arguments(&checkpoint, place.staged),
            folder: work.path(),
            log: &log,
            deadline: toolbox.deadline,
        };
        toolbox.python.build(&call, on_line)?;
        let built = EngineDir::open(place.staged)
            .with_context(|| format!("the engine build wrote no engine (see {})", log.display()))?;
        ensure!(
            built.build.use_refit,
            "the engine that was built cannot be refitted (see {})",
            log.display()
        );
        let kept = place.staged.join("build.log");
        fs::rename(&log, &kept).with_context(|| format!("cannot write {}", kept.display()))
    }

    fn arguments(&self, checkpoint: &Path, output: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--checkpoint".into(), checkpoint.into(), "--output".into(), output.into()];
        let sizes = [
            ("--max-batch-size", self.limits.max_batch),
            ("--max-input-len", self.limits.max_input),
            ("--max-seq-len", self.limits.max_seq),
            ("--max-num-tokens", self.limits.max_num_tokens),
        ];
        for (name, size) in sizes {
            arguments.extend([name.into(), size.to_string().into()]);
        }
        arguments.extend(self.fused_mlp.then(|| "--fused-mlp".into()));
        arguments
    }
}

impl Limits {
    /// Fills in what is not given.
    ///
    /// # Errors
    /// Names the option that breaks a rule.
    pub fn new(sizes: &Sizes, spec: &ModelSpec) -> Result<Self> {
        let context = spec.max_positions;
        let max_seq = sizes.max_seq.unwrap_or(context);
        let max_batch = sizes.max_batch.unwrap_or(64);
        let limits = Self {
            max_batch,
            max_input: sizes.max_input.unwrap_or(max_seq),
            max_seq,
            max_num_tokens: sizes.max_num_tokens.unwrap_or(8192.max(max_batch)),
        };
        let within = |name: &str, got: usize, least: usize, most: usize, why: &str| {
            if (least..=most).contains(&got) {
                return Ok(());
            }
            bail!("{name} must be from {least} to {most}{why}, got {got}")
        };
        within("--max-seq", limits.max_seq, 2, context, " (the model's context)")?;
        within("--max-input", limits.max_input, 1, limits.max_seq, " (--max-seq)")?;
        within("--max-batch", limits.max_batch, 1, 65_536, "")?;
        let least = limits.max_batch;
        within("--max-num-tokens", limits.max_num_tokens, least, 1 << 24, "")?;
        Ok(limits)
    }
}
