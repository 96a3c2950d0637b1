//! What several tests need: the golden models and our engine's answer to them.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its part")]

use std::path::PathBuf;

use rollforge::{
    engine::native::{
        BlockId, Forward, LogitsWanted, SequenceStep,
        cpu::{Cpu, CpuOptions},
    },
    model::ModelSpec,
    rollout::Weights,
};

/// Returns the directory of a golden model.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/models").join(name)
}

/// Returns the golden models: every directory there is.
pub fn golden_names() -> Vec<String> {
    let entries = std::fs::read_dir(golden("")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Starts the CPU transformer on one thread, with room for `positions` tokens.
pub fn cpu(spec: &ModelSpec, weights: &Weights, positions: usize) -> Cpu {
    let options = CpuOptions { threads: 1, ..CpuOptions::default() };
    let mut cpu = Cpu::new(spec.clone(), weights, options).unwrap();
    cpu.allocate_kv(1, positions).unwrap();
    cpu
}

/// Returns the logits at every position of one sequence, row by row.
pub fn logits(cpu: &mut Cpu, tokens: &[u32]) -> Vec<f32> {
    let sequence =
        SequenceStep { tokens, start: 0, blocks: &[BlockId(0)], logits: LogitsWanted::All };
    let mut logits = Vec::new();
    cpu.step(&[sequence], &mut logits).unwrap();
    logits
}
