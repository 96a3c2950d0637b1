//! What a machine can do at most, and what follows for a model.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{
        EngineModel,
        native::cpu::{Cpu, CpuOptions},
    },
    model::ModelSpec,
    rollout::Dtype,
};

/// What some threads of a machine do at most, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Threads that were at work.
    pub threads: usize,
    /// The instruction set that the engine chooses: `portable`, `avx2`, `avx512` or `avx512-bf16`.
    pub kernels: String,
    /// 10^9 bytes read from memory in a second.
    pub read_gb_per_s: f64,
    /// 10^9 bytes copied in memory in a second.
    pub copy_gb_per_s: f64,
    /// 10^9 multiplications and additions of f32 numbers in a second, from registers.
    pub f32_gflops: f64,
    /// The same for bf16 numbers, summed in f32.
    pub bf16_gflops: f64,
}

impl Limits {
    /// Measures them: takes some three seconds.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn measure(threads: usize) -> Result<Self> {
        let EngineModel { spec, weights, .. } = EngineModel::tiny(0);
        let mut cpu = Cpu::new(spec, &weights, CpuOptions { threads, ..CpuOptions::default() })?;
        let roofline = cpu.roofline();
        Ok(Self {
            threads,
            kernels: cpu.kernels().into(),
            read_gb_per_s: roofline.read_bytes_per_s / 1e9,
            copy_gb_per_s: roofline.copy_bytes_per_s / 1e9,
            f32_gflops: roofline.f32_flops / 1e9,
            bf16_gflops: roofline.bf16_flops / 1e9,
        })
    }

    /// Returns a line with all of them.
    pub fn describe(&self) -> String {
        let Self { read_gb_per_s, copy_gb_per_s, f32_gflops, bf16_gflops, .. } = self;
        format!(
            "limits measured in this run: {read_gb_per_s:.1} GB/s read, {copy_gb_per_s:.1} GB/s copied, \
             {f32_gflops:.0} GFLOP/s f32, {bf16_gflops:.0} GFLOP/s bf16"
        )
    }

    /// Returns multiplications and additions in a second.
    pub fn flops(&self, dtype: Dtype) -> f64 {
        1e9 * if dtype == Dtype::F32 { self.f32_gflops } else { self.bf16_gflops }
    }

    /// Returns the shortest time for `tokens` through all layers together and `logits` of them through the head: each
    /// weight is read once, and multiplied and added once for each token. Attention comes on top.
    pub fn forward_seconds(
        &self,
        spec: &ModelSpec,
        dtype: Dtype,
        tokens: usize,
        logits: usize,
    ) -> f64 {
        let (body, head) = weights(spec);
        let read = (body + head) * dtype.size() as f64 / (1e9 * self.read_gb_per_s);
        read.max(operations(spec, tokens, logits) / self.flops(dtype))
    }

    /// Returns the shortest time for the same forward and back, where a product is done three times.
    pub fn training_seconds(
        &self,
        spec: &ModelSpec,
        dtype: Dtype,
        tokens: usize,
        logits: usize,
    ) -> f64 {
        3.0 * operations(spec, tokens, logits) / self.flops(dtype)
    }
}

/// Returns how many multiplications and additions `tokens` through all layers take, and `logits` of them through the
/// head.
fn operations(spec: &ModelSpec, tokens: usize, logits: usize) -> f64 {
    let (body, head) = weights(spec);
    2.0 * (body * tokens as f64 + head * logits as f64)
}

/// Returns how many weights a token is multiplied with in the layers, and how many in the head.
fn weights(spec: &ModelSpec) -> (f64, f64) {
    let table = spec.vocab_size * spec.hidden_size;
    let tables = if spec.tie_word_embeddings { 1 } else { 2 };
    ((spec.parameters() - tables * table) as f64, table as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            threads: 1,
            kernels: "portable".into(),
            read_gb_per_s: 1e-3,
            copy_gb_per_s: 1e-3,
            f32_gflops: 0.5,
            bf16_gflops: 1.0,
        }
    }

    #[test]
    fn one_token_is_limited_by_memory_and_many_by_arithmetic() {
        let spec = EngineModel::tiny(0).spec;
        let (body, head) = weights(&spec);
        assert_eq!(
            (body + head) as usize + if spec.tie_word_embeddings { 0 } else { head as usize },
            spec.parameters()
        );
        let one = limits().forward_seconds(&spec, Dtype::Bf16, 1, 1);
        assert!((one - 2.0 * (body + head) / 1e6).abs() < 1e-9, "{one}");
        let many = limits().forward_seconds(&spec, Dtype::Bf16, 100_000, 100_000);
        assert!((many / (100_000.0 * 2.0 * (body + head) / 1e9) - 1.0).abs() < 1e-9, "{many}");
        assert!(limits().forward_seconds(&spec, Dtype::Bf16, 100_000, 1) < many);
        assert_eq!(limits().forward_seconds(&spec, Dtype::F32, 100_000, 100_000), 2.0 * many);
    }

    #[test]
    fn the_way_back_is_twice_the_way_there() {
        let spec = EngineModel::tiny(0).spec;
        let (there, all) = (
            limits().forward_seconds(&spec, Dtype::F32, 100_000, 50_000),
            limits().training_seconds(&spec, Dtype::F32, 100_000, 50_000),
        );
        assert!((all / there - 3.0).abs() < 1e-9, "{all} {there}");
    }
}
