//! Cosines and sines of rotary position embeddings, for the positions seen so far.

use crate::model::ModelSpec;

/// A table that grows with the longest sequence.
#[derive(Debug)]
pub(super) struct Rotary {
    frequencies: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rotary {
    /// Starts an empty table.
    pub(super) fn new(spec: &ModelSpec) -> Self {
        Self { frequencies: spec.rope_frequencies(), cos: Vec::new(), sin: Vec::new() }
    }

    /// Makes sure that the first `positions` positions are there.
    pub(super) fn reach(&mut self, positions: usize) {
        let half = self.frequencies.len();
        for position in self.cos.len() / half..positions {
            // The angle is an f32 product, as in transformers, also far out, where f32 is coarse.
            let angles = self.frequencies.iter().map(|frequency| position as f32 * frequency);
            self.cos.extend(angles.clone().map(f32::cos));
            self.sin.extend(angles.map(f32::sin));
        }
    }

    /// Returns cosines and sines of one position, `head_dim / 2` of each.
    pub(super) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.frequencies.len();
        let range = position * half..(position + 1) * half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}
