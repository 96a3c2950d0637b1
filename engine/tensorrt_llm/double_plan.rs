//! Writes engine directories of the contract double: for tests, and to try a run where there is no GPU.
//!
//! The format of the engine file is told in `ffi/tensorrt_llm/double/plan.h`.

#[cfg(test)]
mod tests;

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use serde_json::json;

use crate::{
    engine::Error,
    ffi::memory::Reading,
    model::{
        ModelSpec,
        tensorrt_llm::{Layout, config_json, shard, tensors},
    },
    rollout::{Dtype, WeightTensor, Weights},
};

/// The data, and each tensor in it, begins at a multiple of this.
const ALIGNMENT: usize = 64;
/// How long to wait for an optimizer step to finish before its weights are read.
const PATIENCE: Duration = Duration::from_secs(60);

/// What an engine of the double is built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoubleBuild {
    /// The number format of the weights. The double computes in f32 whatever it is.
    pub dtype: Dtype,
    /// Whether gate and up are one tensor, `mlp.fused_fc`.
    pub fused_mlp: bool,
    /// Whether weights can be replaced.
    pub refittable: bool,
    /// Most sequences computed together.
    pub max_batch_size: usize,
    /// Most tokens in one step.
    pub max_num_tokens: usize,
    /// Longest sequence, prompt and completion together; 0 is the model's longest.
    pub max_seq_len: usize,
    /// Tokens in a block of the KV cache.
    pub tokens_per_block: usize,
    /// Blocks of the KV cache; 0 is enough for a full batch of longest sequences.
    pub kv_blocks: usize,
    /// Lines for the plan's header, such as `fault commit 1 fail_at:3` or `lacks refit_in_place`.
    pub script: Vec<String>,
}

impl Default for DoubleBuild {
    fn default() -> Self {
        Self {
            dtype: Dtype::F32,
            fused_mlp: true,
            refittable: true,
            max_batch_size: 64,
            max_num_tokens: 2048,
            max_seq_len: 0,
            tokens_per_block: 16,
            kv_blocks: 0,
            script: Vec::new(),
        }
    }
}

/// Writes `rank0.engine` and `config.json` of an engine of the double with these weights in it. Each file is complete or
/// as it was.
///
/// # Errors
/// One line: TensorRT-LLM has no such model, the weights are not those of the model, or a file cannot be written.
///
/// # Example
/// ```
/// use rollforge::engine::{EngineModel, tensorrt_llm::{DoubleBuild, write_double_engine}};
///
/// let dir = tempfile::tempdir()?;
/// let EngineModel { spec, weights, .. } = EngineModel::tiny(0);
/// write_double_engine(dir.path(), &spec, &weights, &DoubleBuild::default())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_double_engine(
    dir: &Path,
    spec: &ModelSpec,
    weights: &Weights,
    build: &DoubleBuild,
) -> Result<(), Error> {
    let layout = Layout::checkpoint(1).engine(spec, build.fused_mlp);
    let failed = |error: crate::model::tensorrt_llm::Error| Error::Model(error.to_string());
    let map = tensors(spec, &layout, 0).map_err(failed)?;
    let laid_out = shard(spec, &layout, 0, weights, build.dtype).map_err(failed)?;
    let reading = laid_out.lease().read(PATIENCE);
    let reading = reading.ok_or_else(|| Error::Model("the weights are being written to".into()))?;
    let listed = map.iter().map(|mapped| {
        let tensor = laid_out.get(&mapped.name).expect("a shard holds what the map lists");
        (mapped.name.as_str(), tensor)
    });
    let plan = Plan { spec, build, tensors: listed.collect(), reading: &reading };
    std::fs::create_dir_all(dir)
        .map_err(|error| Error::Model(format!("cannot create {}: {error}", dir.display())))?;
    replace(dir, "rank0.engine", |out| plan.write(out))?;
    let mut config =
        serde_json::to_string_pretty(&plan.config(&layout)).expect("JSON can be written");
    config.push('\n');
    replace(dir, "config.json", |out| out.write_all(config.as_bytes()))
}

/// An engine file that is about to be written.
struct Plan<'a> {
    spec: &'a ModelSpec,
    build: &'a DoubleBuild,
    tensors: Vec<(&'a str, &'a WeightTensor)>,
    reading: &'a Reading,
}

impl Plan<'_> {
    fn max_seq_len(&self) -> usize {
        match self.build.max_seq_len {
            0 => self.spec.max_positions,
            length => length,
        }
    }

    /// What TensorRT-LLM would write beside such an engine.
    fn config(&self, layout: &Layout) -> serde_json::Value {
        let build = self.build;
        json!({
            "version": "contract double",
            "pretrained_config": config_json(self.spec, &Layout::checkpoint(layout.tensor_parallel), build.dtype),
            "build_config": {
                "max_input_len": self.max_seq_len() - 1,
                "max_seq_len": self.max_seq_len(),
                "max_batch_size": build.max_batch_size,
                "max_num_tokens": build.max_num_tokens,
                "max_beam_width": 1,
                "use_refit": build.refittable,
                "plugin_config": {
                    "use_fused_mlp": build.fused_mlp,
                    "use_paged_context_fmha": true,
                    "tokens_per_block": build.tokens_per_block,
                },
            },
        })
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let frequencies = self.spec.rope_frequencies();
        let rotary: Vec<u8> = frequencies.iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut header = self.header();
        let mut data = vec![rotary.as_slice()];
        // Tables of cosines and sines are constants of a TensorRT-LLM network too, and listed with its weights.
        let _ = writeln!(header, "tensor rotary_inv_freq f32 {} 0", frequencies.len());
        let mut offset = rotary.len().next_multiple_of(ALIGNMENT);
        for &(name, tensor) in &self.tensors {
            let bytes = tensor.memory.bytes(self.reading);
            let (dtype, count) = (tensor.dtype, tensor.elements());
            let _ = writeln!(header, "tensor {name} {dtype} {count} {offset}");
            offset = (offset + bytes.len()).next_multiple_of(ALIGNMENT);
            data.push(bytes);
        }
        header.push_str("data\n");
        for part in std::iter::once(header.as_bytes()).chain(data) {
            out.write_all(part)?;
            out.write_all(&[0; ALIGNMENT][..part.len().next_multiple_of(ALIGNMENT) - part.len()])?;
        }
        Ok(())
    }

    fn header(&self) -> String {
        let (spec, build) = (self.spec, self.build);
        let sequence_blocks = self.max_seq_len().div_ceil(build.tokens_per_block.max(1));
        let kv_blocks = match build.kv_blocks {
            0 => build.max_batch_size * sequence_blocks,
            blocks => blocks,
        };
        let sizes = [
            ("vocab_size", spec.vocab_size),
            ("vocab_padded", Layout::checkpoint(1).padded_vocabulary(spec)),
            ("hidden_size", spec.hidden_size),
            ("intermediate_size", spec.intermediate_size),
            ("num_layers", spec.num_layers),
            ("num_heads", spec.num_heads),
            ("num_kv_heads", spec.num_kv_heads),
            ("head_dim", spec.head_dim),
            ("qk_norm", usize::from(spec.qk_norm)),
            ("fused_mlp", usize::from(build.fused_mlp)),
            ("max_batch_size", build.max_batch_size),
            ("max_num_tokens", build.max_num_tokens),
            ("max_seq_len", self.max_seq_len()),
            ("tokens_per_block", build.tokens_per_block),
            ("kv_blocks", kv_blocks),
            ("sliding_window", spec.sliding_window.unwrap_or(0)),
            ("refittable", usize::from(build.refittable)),
        ];
        let mut header = String::from("rollforge-double-plan 1\n");
        for (name, size) in sizes {
            let _ = writeln!(header, "{name} {size}");
        }
        let _ = writeln!(header, "rms_norm_eps {:e}", spec.rms_norm_eps);
        if !build.script.is_empty() {
            let _ = writeln!(header, "identity {}", identity());
        }
        for line in &build.script {
            let _ = writeln!(header, "{line}");
        }
        header
    }
}

/// Returns a word that no other plan has: faults are counted for each plan, through all its loads in a process.
fn identity() -> String {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let count = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{count}", std::process::id(), since.as_nanos())
}

/// Writes a file under a temporary name, syncs it to the disk and renames it.
fn replace(
    dir: &Path,
    name: &str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let path = dir.join(name);
    let put = || {
        let mut out = BufWriter::new(tempfile::NamedTempFile::new_in(dir)?);
        write(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(dir)?.sync_all()
    };
    put().map_err(|error| Error::Model(format!("cannot write {}: {error}", path.display())))
}
