//! TensorRT-LLM checkpoints: `config.json` and one `rankN.safetensors` for each rank, out and in.

use std::{path::Path, time::Duration};

use super::{
    Layout, Mapped, Pretrained, config_json,
    error::{Result, rule},
    gather::read,
    pretrained, scatter, tensors,
};
use crate::{
    ffi::memory::Reading,
    model::{
        self, ModelSpec, convert,
        fields::Fields,
        files,
        new_dir::write_dir,
        new_shard::{Entry, NewShard},
        read_tensors,
    },
    rollout::{Dtype, Weights},
};

const CONFIG: &str = "config.json";
/// Longest wait for a lease that nobody else has.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a checkpoint is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// How the model is cut. In a checkpoint nothing is fused or shared: see [`Layout::checkpoint`].
    pub layout: Layout,
    /// The number format of every tensor.
    pub dtype: Dtype,
    /// Replace a directory that is there.
    pub replace: bool,
}

/// Writes a checkpoint that TensorRT-LLM's builder reads, from any weights on the host: a directory's or the live
/// policy's. One tensor at a time is in memory, beyond the weights themselves, which nobody may write to meanwhile.
///
/// # Errors
/// When the directory exists and may not be replaced, cannot be written, the model cannot be cut so, the weights are not
/// those of the model, or a number is too large for the format. Then nothing is left behind, and a directory that was to
/// be replaced is as it was.
///
/// # Example
/// ```no_run
/// use rollforge::{
///     model::{Checkpoint, tensorrt_llm::{CheckpointOptions, Layout, write_checkpoint}},
///     rollout::Dtype,
/// };
/// let checkpoint = Checkpoint::open("models/tiny".as_ref())?;
/// let weights = checkpoint.weights(Dtype::Bf16)?;
/// let layout = Layout::checkpoint(2);
/// let options = CheckpointOptions { layout, dtype: Dtype::Bf16, replace: false };
/// write_checkpoint("tiny-tp2".as_ref(), checkpoint.spec(), &weights, &options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_checkpoint(
    dir: &Path,
    spec: &ModelSpec,
    weights: &Weights,
    options: &CheckpointOptions,
) -> Result<()> {
    spec.check().map_err(model::Error::from)?;
    let layout = options.layout;
    layout.check(spec)?;
    rule(!layout.fused_mlp, "fused_mlp", "false in a checkpoint: the builder fuses", true)?;
    rule(!layout.share_embedding, "share_embedding", "false in a checkpoint", true)?;
    let coverage = weights.check_coverage(&spec.tensors());
    coverage.map_err(|reason| model::Error::Coverage { path: dir.to_owned(), reason })?;
    write_dir(dir, options.replace, |temporary| {
        let config = files::pretty(&config_json(spec, &layout, options.dtype));
        files::write_synced(&temporary.join(CONFIG), config.as_bytes())?;
        let reading = read(weights)?;
        for rank in 0..layout.tensor_parallel {
            let list = tensors(spec, &layout, rank)?;
            write_rank(&rank_file(temporary, rank), &list, (weights, &reading), options.dtype)?;
        }
        Ok(())
    })
}

fn write_rank(
    path: &Path,
    list: &[Mapped],
    (weights, reading): (&Weights, &Reading),
    dtype: Dtype,
) -> Result<()> {
    let entries: Vec<Entry<'_>> = list
        .iter()
        .map(|mapped| Entry { name: &mapped.name, dtype, shape: &mapped.shape })
        .collect();
    let mut file = NewShard::create(path, &entries)?;
    let mut copied = Vec::new();
    for mapped in list {
        copied.resize(mapped.elements() * dtype.size(), 0);
        mapped.gather(weights, reading, dtype, &mut copied)?;
        file.write(&copied)?;
    }
    Ok(file.finish()?)
}

/// Reads a checkpoint back: the model and its weights, under Hugging Face names.
///
/// # Errors
/// One line that names the file or the rank: damaged, of a model this program does not have, tensors missing or too
/// many, numbers that are not finite, or ranks that do not agree on what they share.
pub fn read_checkpoint(dir: &Path) -> Result<(ModelSpec, Weights)> {
    let path = dir.join(CONFIG);
    let object = files::object(&path)?;
    let Pretrained { spec, layout } = pretrained::parse(Fields { path: &path, object: &object })?;
    let ranks = (0..layout.tensor_parallel)
        .map(|rank| read_rank(&rank_file(dir, rank)))
        .collect::<Result<Vec<_>>>()?;
    // Converters of upstream leave the head of a tied model out, or write it.
    let named = layout.as_named(ranks[0].iter().map(|(name, _)| name));
    let layout =
        Layout { share_embedding: named.share_embedding && spec.tie_word_embeddings, ..named };
    let weights = scatter(&spec, &layout, &ranks)?;
    Ok((spec, weights))
}

fn read_rank(path: &Path) -> Result<Weights> {
    let weights = read_tensors(path)?;
    let reading = weights.lease().read(PATIENCE).expect("nobody else has the lease");
    for (name, tensor) in weights.iter() {
        if let Some(index) = convert::first_not_finite(tensor.memory.bytes(&reading), tensor.dtype)
        {
            let problem = format!("has a NaN or infinite number at index {index}");
            return Err(model::Error::tensor(path, name, problem).into());
        }
    }
    drop(reading);
    Ok(weights)
}

fn rank_file(dir: &Path, rank: usize) -> std::path::PathBuf {
    dir.join(format!("rank{rank}.safetensors"))
}
