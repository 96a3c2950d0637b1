//! What a refit carries: every tensor of a model, named, with the version they belong to.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::WeightVersion;
use crate::ffi::memory::{Lease, Memory, Reading};

/// The number format of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
}

impl Dtype {
    /// Returns the bytes one number takes.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Name and shape of a tensor that a model must have. Matrices are `[out, in]`, as in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The Hugging Face name, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// The extent of each dimension.
    pub shape: Vec<usize>,
}

/// One tensor: row-major and contiguous, on the host unless its memory says otherwise.
#[derive(Clone, Debug)]
pub struct WeightTensor {
    /// The number format.
    pub dtype: Dtype,
    /// The extent of each dimension.
    pub shape: Vec<usize>,
    /// The numbers.
    pub memory: Memory,
}

impl WeightTensor {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the numbers of an f32 tensor.
    ///
    /// # Panics
    /// If the dtype is another one, or the memory is not aligned to it.
    pub fn f32<'a>(&'a self, reading: &'a Reading) -> &'a [f32] {
        assert_eq!(self.dtype, Dtype::F32);
        bytemuck::cast_slice(self.memory.bytes(reading))
    }

    /// Returns the numbers of a bf16 tensor.
    ///
    /// # Panics
    /// If the dtype is another one, or the memory is not aligned to it.
    pub fn bf16<'a>(&'a self, reading: &'a Reading) -> &'a [half::bf16] {
        assert_eq!(self.dtype, Dtype::Bf16);
        bytemuck::cast_slice(self.memory.bytes(reading))
    }
}

/// Every tensor of a model under one version. Cheap to clone: the numbers are shared.
#[derive(Clone, Debug)]
pub struct Weights {
    version: WeightVersion,
    lease: Lease,
    tensors: Arc<BTreeMap<String, WeightTensor>>,
    /// How often the memory had been written to when every number was known to be finite.
    finite_at: Option<u64>,
}

/// A refit's tensors are not exactly those the model has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct CoverageError {
    /// Names the model has and the weights lack.
    pub missing: Vec<String>,
    /// Names the weights have and the model lacks.
    pub extra: Vec<String>,
    /// Shapes that differ: name, expected, got.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl CoverageError {
    fn sentence(&self) -> String {
        let few = |names: &[String]| {
            let first = names.iter().take(5).map(|name| name.escape_debug().to_string());
            let shown = first.collect::<Vec<_>>().join(", ");
            if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
        };
        let mut parts = Vec::new();
        if !self.missing.is_empty() {
            parts.push(format!("missing {}", few(&self.missing)));
        }
        if !self.extra.is_empty() {
            parts.push(format!("extra {}", few(&self.extra)));
        }
        let shapes: Vec<String> = self
            .misshapen
            .iter()
            .map(|(name, expected, got)| format!("{name} must be {expected:?}, got {got:?}"))
            .collect();
        if !shapes.is_empty() {
            parts.push(few(&shapes));
        }
        format!("the weights do not cover the model: {}", parts.join("; "))
    }
}

impl Weights {
    /// Gathers tensors that are read and written under one lease.
    ///
    /// # Panics
    /// If a tensor's memory is under another lease, or is not as long as dtype and shape say.
    pub fn new(
        version: WeightVersion,
        lease: Lease,
        tensors: BTreeMap<String, WeightTensor>,
    ) -> Self {
        for (name, tensor) in &tensors {
            assert!(tensor.memory.lease().is(&lease), "{name} is under another lease");
            assert_eq!(
                tensor.memory.len(),
                tensor.elements() * tensor.dtype.size(),
                "{name}: bytes and shape differ"
            );
        }
        Self { version, lease, tensors: Arc::new(tensors), finite_at: None }
    }

    /// Says that whoever hands these weights over has seen since the last write that every number is finite: who takes
    /// them need not look again. It holds until the next write.
    #[must_use]
    pub fn found_finite(self) -> Self {
        Self { finite_at: Some(self.lease.writes()), ..self }
    }

    /// Says whether every number is known to be finite, as the reading shows them.
    pub fn is_found_finite(&self, reading: &Reading) -> bool {
        self.finite_at == Some(reading.writes())
    }

    /// Says whether both are the same tensors in the same memory, under whatever version.
    pub fn is_alias_of(&self, other: &Self) -> bool {
        let same = |(one, other): (&WeightTensor, &WeightTensor)| {
            (one.dtype, &one.shape) == (other.dtype, &other.shape)
                && (one.memory.address(), one.memory.len())
                    == (other.memory.address(), other.memory.len())
        };
        self.lease.is(&other.lease)
            && self.tensors.keys().eq(other.tensors.keys())
            && self.tensors.values().zip(other.tensors.values()).all(same)
    }

    /// Returns the version these weights carry.
    pub fn version(&self) -> WeightVersion {
        self.version
    }

    /// Returns the lease under which the tensors are read.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns a tensor by its name.
    pub fn get(&self, name: &str) -> Option<&WeightTensor> {
        self.tensors.get(name)
    }

    /// Returns every tensor, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &WeightTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Returns the bytes of all tensors together.
    pub fn bytes(&self) -> usize {
        self.tensors.values().map(|tensor| tensor.memory.len()).sum()
    }

    /// Checks that these are exactly the tensors a model has, each in its shape.
    ///
    /// # Errors
    /// Lists every name that is missing, extra or of another shape.
    pub fn check_coverage(&self, expected: &[TensorSpec]) -> Result<(), CoverageError> {
        let mut error = CoverageError { missing: vec![], extra: vec![], misshapen: vec![] };
        for spec in expected {
            match self.tensors.get(&spec.name) {
                None => error.missing.push(spec.name.clone()),
                Some(tensor) if tensor.shape != spec.shape => {
                    error.misshapen.push((
                        spec.name.clone(),
                        spec.shape.clone(),
                        tensor.shape.clone(),
                    ));
                }
                Some(_) => {}
            }
        }
        let known: std::collections::HashSet<&str> =
            expected.iter().map(|spec| spec.name.as_str()).collect();
        error.extra =
            self.tensors.keys().filter(|name| !known.contains(name.as_str())).cloned().collect();
        let clean =
            error.missing.is_empty() && error.extra.is_empty() && error.misshapen.is_empty();
        if clean { Ok(()) } else { Err(error) }
    }

    /// Returns a BLAKE3 hash over names, dtypes, shapes and bytes, in the order of names.
    pub fn checksum(&self, reading: &Reading) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in &*self.tensors {
            hasher.update(format!("{name} {} {:?}\n", tensor.dtype, tensor.shape).as_bytes());
            hasher.update(tensor.memory.bytes(reading));
        }
        hasher.finalize().to_hex().to_string()
    }
}
