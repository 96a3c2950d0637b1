//! What a loop tells whoever watches it.

use super::Metrics;

/// Watches a run. Loops report to it and learn nothing from it.
pub trait Observer: Send {
    /// A stage of `total` steps begins: "sft", "rm", "dpo", "ppo".
    fn start(&mut self, stage: &str, total: u64);

    /// Step `step` of the stage (from 1) is done.
    fn step(&mut self, step: u64, metrics: &Metrics);

    /// Something to say in one line, such as how many rows were left out.
    fn note(&mut self, line: &str);

    /// The stage is over.
    fn finish(&mut self);
}

/// Watches and says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn start(&mut self, _stage: &str, _total: u64) {}
    fn step(&mut self, _step: u64, _metrics: &Metrics) {}
    fn note(&mut self, _line: &str) {}
    fn finish(&mut self) {}
}
