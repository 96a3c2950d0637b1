//! Weights from nothing: random ones for new models, and a score head on a language model.

use std::collections::BTreeMap;

use half::{bf16, f16};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use rayon::prelude::*;

use super::{Error, Head, ModelSpec, error::Result};
use crate::{
    ffi::memory::{Lease, Memory},
    rollout::{Dtype, TensorSpec, WeightTensor, WeightVersion, Weights},
};

const SCORE: &str = Head::SCORE;

/// How a new model's weights are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Init {
    /// Standard deviation of every matrix. Norms are 1 and biases 0, as transformers initialises them.
    pub std: f32,
    /// The same seed gives the same weights, tensor by tensor.
    pub seed: u64,
}

impl Default for Init {
    fn default() -> Self {
        Self { std: 0.02, seed: 0 }
    }
}

/// Returns random weights in the spec's number format.
pub fn random_weights(spec: &ModelSpec, init: Init) -> Weights {
    let lease = Lease::default();
    let fill = |tensor: TensorSpec| {
        let numbers = match tensor.shape.as_slice() {
            _ if tensor.name == SCORE => score_head(spec, init.seed),
            [length] => vec![if tensor.name.ends_with("bias") { 0.0 } else { 1.0 }; *length],
            shape => normal(&tensor.name, shape.iter().product(), init),
        };
        let memory = store(numbers, spec.dtype, &lease);
        (tensor.name, WeightTensor { dtype: spec.dtype, shape: tensor.shape, memory })
    };
    let tensors: BTreeMap<_, _> = spec.tensors().into_par_iter().map(fill).collect();
    Weights::new(WeightVersion::default(), lease, tensors)
}

/// Returns a language model's transformer under a new score head, for a reward or value model.
///
/// The head has a number for each of `labels`, or one without a name where there are none. The transformer's tensors are
/// shared, not copied. `score.weight` is drawn from N(0, 1/(hidden + 1)) (Huang et al., 2024, after Stiennon et al.,
/// 2020). A model that has a score head already is returned as it is.
///
/// # Errors
/// When the weights are not those of `spec`.
pub fn with_score_head(
    spec: &ModelSpec,
    weights: &Weights,
    labels: &[String],
    seed: u64,
) -> Result<(ModelSpec, Weights)> {
    let path = std::path::PathBuf::from("score head");
    let coverage = weights.check_coverage(&spec.tensors());
    coverage.map_err(|reason| Error::Coverage { path, reason })?;
    if spec.head == Head::Score {
        return Ok((spec.clone(), weights.clone()));
    }
    let scored = spec.with_labels(labels);
    let body = weights.iter().filter(|(name, _)| *name != "lm_head.weight");
    let mut tensors: BTreeMap<String, WeightTensor> =
        body.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    let dtype = tensors.get("model.norm.weight").map_or(spec.dtype, |tensor| tensor.dtype);
    let memory = store(score_head(&scored, seed), dtype, weights.lease());
    let head = WeightTensor { dtype, shape: vec![scored.num_labels(), spec.hidden_size], memory };
    tensors.insert(SCORE.into(), head);
    Ok((scored, Weights::new(weights.version(), weights.lease().clone(), tensors)))
}

fn score_head(spec: &ModelSpec, seed: u64) -> Vec<f32> {
    let std = 1.0 / ((spec.hidden_size + 1) as f32).sqrt();
    normal(SCORE, spec.num_labels() * spec.hidden_size, Init { std, seed })
}

/// Draws from N(0, std²) with a generator of the tensor's own, so that one tensor's numbers do not hang on another's.
fn normal(name: &str, length: usize, init: Init) -> Vec<f32> {
    let key = blake3::hash(format!("{} {name}", init.seed).as_bytes());
    let mut random = ChaCha8Rng::from_seed(*key.as_bytes());
    // In (0, 1]: the logarithm below is finite.
    let mut uniform = || (((random.next_u32() >> 8) + 1) as f64) / f64::from(1 << 24);
    let mut numbers = Vec::with_capacity(length + 1);
    while numbers.len() < length {
        // Box and Muller (1958): two uniform numbers give two normal ones.
        let radius = (-2.0 * uniform().ln()).sqrt() * f64::from(init.std);
        let (sin, cos) = (std::f64::consts::TAU * uniform()).sin_cos();
        numbers.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    numbers.truncate(length);
    numbers
}

fn store(numbers: Vec<f32>, dtype: Dtype, lease: &Lease) -> Memory {
    match dtype {
        Dtype::F32 => Memory::from_vec(numbers, lease),
        Dtype::F16 => {
            Memory::from_vec(numbers.into_iter().map(f16::from_f32).collect::<Vec<_>>(), lease)
        }
        Dtype::Bf16 => {
            Memory::from_vec(numbers.into_iter().map(bf16::from_f32).collect::<Vec<_>>(), lease)
        }
    }
}
