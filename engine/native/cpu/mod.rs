//! The transformer on the processor: Llama, Mistral, Qwen2 and Qwen3, in f32 or bf16, without libtorch.
//!
//! The weights are read where they are, row-major `[out, in]`. The residual stream is f32; whatever goes into a
//! product is in the format of the weights, and so are keys and values in the cache. The bits of a token's
//! logits depend on the weights, the tokens before it and the instruction set, and on nothing else (see `kernels`).

mod convert;
#[allow(unsafe_code)]
mod kernels;
mod kv;
mod layers;
mod pass;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod refit_tests;
mod rotary;
mod serving;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::{BlockId, Forward, SequenceStep};
use crate::{
    engine::{Error, RefitMode, RefitReport},
    ffi::team::Team,
    model::{Head, ModelSpec},
    rollout::{Dtype, Weights},
};

pub use crate::simd::KernelChoice;
use crate::simd::{Element, Kernels};
use half::bf16;
pub use kernels::Roofline;
use kv::KvCache;
use pass::{Pass, Workspace};
use rotary::Rotary;
use serving::{Refit, Serving};

/// How the transformer runs.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Number of threads, the caller included. The default is one per processor.
    pub threads: usize,
    /// Which instruction set. The default is the widest.
    pub kernels: KernelChoice,
    /// The format to keep weights in, f32 or bf16. The default is that of the model; f16 becomes f32.
    pub dtype: Option<Dtype>,
    /// How long to wait for somebody who writes to aliased weights. The default is a minute.
    pub deadline: Duration,
}

impl Default for CpuOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let deadline = Duration::from_secs(60);
        Self { threads, kernels: KernelChoice::Auto, dtype: None, deadline }
    }
}

/// A transformer on the processor.
#[derive(Debug)]
pub struct Cpu {
    spec: ModelSpec,
    kernels: Kernels,
    team: Team,
    serving: Serving,
    memory: Format<Memory<f32>, Memory<bf16>>,
    rotary: Rotary,
}

/// One of the number formats that the transformer computes with.
#[derive(Debug)]
enum Format<F32, Bf16> {
    F32(F32),
    Bf16(Bf16),
}

/// What a transformer remembers, and room to compute in.
#[derive(Debug)]
struct Memory<E> {
    cache: KvCache<E>,
    work: Workspace<E>,
}

impl<E: Element> Memory<E> {
    fn new(spec: &ModelSpec, blocks: usize, block_size: usize) -> Result<Self, Error> {
        Ok(Self { cache: KvCache::new(spec, blocks, block_size)?, work: Workspace::default() })
    }
}

/// Does the same in either format.
macro_rules! in_format {
    ($format:expr, $memory:ident => $do:expr) => {
        match $format {
            Format::F32($memory) => $do,
            Format::Bf16($memory) => $do,
        }
    };
}

impl Cpu {
    /// Takes a model in. The weights are read where they are, if their format allows it.
    ///
    /// # Errors
    /// When the weights do not cover the model or are not finite, or when the processor lacks the chosen kernels.
    pub fn new(spec: ModelSpec, weights: &Weights, options: CpuOptions) -> Result<Self, Error> {
        if spec.head != Head::LanguageModel {
            let reason = "the engine needs a language model, got a model with a score head";
            return Err(Error::Model(reason.into()));
        }
        let dtype = match options.dtype.unwrap_or(spec.dtype) {
            Dtype::F16 => Dtype::F32,
            dtype => dtype,
        };
        let kernels = Kernels::select(options.kernels).ok_or_else(|| {
            Error::Model(format!("this processor has no {:?} instructions", options.kernels))
        })?;
        let mut team = Team::new(options.threads)
            .map_err(|error| Error::Model(format!("cannot start the engine's threads: {error}")))?;
        let serving = Serving::new(spec.clone(), dtype, options.deadline, weights, &mut team)?;
        let memory = match dtype {
            Dtype::Bf16 => Format::Bf16(Memory::new(&spec, 0, 1)?),
            Dtype::F32 | Dtype::F16 => Format::F32(Memory::new(&spec, 0, 1)?),
        };
        let rotary = Rotary::new(&spec);
        Ok(Self { spec, kernels, team, serving, memory, rotary })
    }

    /// Measures what this processor and its memory can do at most, with these kernels and threads.
    pub fn roofline(&mut self) -> Roofline {
        self.kernels.roofline(&mut self.team)
    }

    /// Returns the instruction set in use: `portable`, `avx2`, `avx512` or `avx512-bf16`.
    pub fn kernels(&self) -> &'static str {
        self.kernels.name()
    }

    fn check(&self, sequences: &[SequenceStep<'_>]) -> Result<(), Error> {
        let vocab_size = self.spec.vocab_size;
        let block_size = in_format!(&self.memory, memory => memory.cache.block_size);
        for step in sequences {
            let room = step.blocks.len() * block_size;
            assert!(
                step.start + step.tokens.len() <= room,
                "the block table has room for the step"
            );
            if let Some(token) = step.tokens.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(Error::Request {
                    field: "prompt",
                    rule: format!("token ids below {vocab_size}"),
                    got: token.to_string(),
                });
            }
        }
        Ok(())
    }
}

impl Forward for Cpu {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn threads(&self) -> usize {
        self.team.threads()
    }

    fn share(&mut self, tasks: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        self.team.run(tasks, task);
    }

    fn allocate_kv(&mut self, blocks: usize, block_size: usize) -> Result<(), Error> {
        in_format!(&mut self.memory, memory => {
            memory.cache = KvCache::new(&self.spec, blocks, block_size)?;
        });
        Ok(())
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) {
        in_format!(&mut self.memory, memory => memory.cache.copy_block(from, to));
    }

    fn step(&mut self, sequences: &[SequenceStep<'_>], logits: &mut Vec<f32>) -> Result<(), Error> {
        self.check(sequences)?;
        let reading = self.serving.read()?;
        in_format!(&mut self.memory, memory => {
            let pass = Pass {
                spec: &self.spec,
                kernels: self.kernels,
                team: &mut self.team,
                layers: self.serving.layers(),
                reading: &reading,
                cache: &mut memory.cache,
                rotary: &mut self.rotary,
                work: &mut memory.work,
                sequences,
            };
            pass.run(logits);
        });
        Ok(())
    }

    fn refit(
        &mut self,
        weights: &Weights,
        mode: RefitMode,
        checksum: bool,
    ) -> Result<RefitReport, Error> {
        self.serving.refit(Refit { weights, mode, checksum, team: &mut self.team })
    }

    fn weights(&self) -> &Weights {
        self.serving.weights()
    }
}
