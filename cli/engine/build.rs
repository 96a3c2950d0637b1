//! `rollforge engine build`: a model into a TensorRT-LLM engine.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::ValueEnum;
use indicatif::ProgressBar;

use crate::{
    cli::output::{note, print},
    rollout::Dtype,
    run::engine_build::{Cache, EngineBuild, Product, Python, Sizes, build},
};

/// Longest wait for another process that builds the same engine.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// Build an engine that takes new weights from a model
///
/// Writes a TensorRT-LLM checkpoint and runs the build in a Python that has TensorRT-LLM. An engine is kept by what decides
/// how it comes out: shape, format, sizes, GPU and versions. Its weights are no part of that, since every start of a run
/// puts its own weights in.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A Hugging Face model directory, or a run directory: then its latest checkpoint
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The directory to write
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,
    /// Number format of the engine, which must be that of the refits
    #[arg(long, value_enum, default_value_t = Format::Bf16)]
    dtype: Format,
    /// GPUs that share each layer
    #[arg(long, default_value_t = 1, value_name = "N")]
    tp: usize,
    /// Most sequences computed together; default 64
    #[arg(long, value_name = "N")]
    max_batch: Option<usize>,
    /// Longest prompt; default --max-seq
    #[arg(long, value_name = "N")]
    max_input: Option<usize>,
    /// Longest sequence, prompt and completion together; default the model's context
    #[arg(long, value_name = "N")]
    max_seq: Option<usize>,
    /// Most tokens in one engine step; default 8192
    #[arg(long, value_name = "N")]
    max_num_tokens: Option<usize>,
    /// Compute up and gate as one matrix
    #[arg(long)]
    fused_mlp: bool,
    /// The Python that has TensorRT-LLM
    #[arg(long, default_value = "python3", value_name = "PY")]
    python: PathBuf,
    /// Hours after which a build is stopped
    #[arg(long, default_value_t = 6.0, value_name = "H")]
    deadline: f64,
    /// Only write the TensorRT-LLM checkpoint
    #[arg(long)]
    checkpoint_only: bool,
    /// Write an engine of the contract double, for tests; needs no Python
    #[arg(long, conflicts_with = "checkpoint_only")]
    double: bool,
    /// Build anew, and keep nothing
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
    /// Where engines are kept; default $XDG_CACHE_HOME/rollforge/engines
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Show all that the build says
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Bf16,
    F32,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let request = arguments.request()?;
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    let built = build(&request, &mut |line| {
        if arguments.verbose {
            bar.suspend(|| note(line));
        } else {
            bar.set_message(line.to_owned());
        }
    });
    bar.finish_and_clear();
    let built = built?;
    if let Some(key) = built.cached {
        note(format_args!(
            "from the cache ({key}): its weights are those of an earlier build until a refit"
        ));
    }
    if arguments.tp > 1 && !arguments.checkpoint_only {
        note("runs take engines of one GPU only so far: --tp 1");
    }
    print(built.path.display())?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn request(&self) -> anyhow::Result<EngineBuild> {
        Ok(EngineBuild {
            model: self.model.clone(),
            out: self.out.clone(),
            dtype: match self.dtype {
                Format::Bf16 => Dtype::Bf16,
                Format::F32 => Dtype::F32,
            },
            tensor_parallel: self.tp,
            fused_mlp: self.fused_mlp,
            sizes: Sizes {
                max_batch: self.max_batch,
                max_input: self.max_input,
                max_seq: self.max_seq,
                max_num_tokens: self.max_num_tokens,
            },
            product: self.product()?,
        })
    }

    fn product(&self) -> anyhow::Result<Product> {
        if self.checkpoint_only {
            return Ok(Product::Checkpoint);
        }
        if self.double {
            return double();
        }
        let cache = match (&self.cache, self.no_cache) {
            (_, true) => None,
            (Some(folder), false) => Some(folder.clone()),
            (None, false) => Some(Cache::default_folder()?),
        };
        let deadline = Duration::try_from_secs_f64(self.deadline * 3600.0);
        Ok(Product::Engine {
            python: Python(self.python.clone()),
            cache: cache.map(|folder| Cache::new(folder, PATIENCE)),
            deadline: deadline.map_err(|_| {
                anyhow::anyhow!("--deadline must be a number of hours, got {}", self.deadline)
            })?,
        })
    }
}

#[cfg(feature = "tensorrt-llm")]
fn double() -> anyhow::Result<Product> {
    Ok(Product::Double)
}

#[cfg(not(feature = "tensorrt-llm"))]
fn double() -> anyhow::Result<Product> {
    anyhow::bail!("--double needs a build with the feature `tensorrt-llm`")
}
