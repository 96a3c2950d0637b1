//! A packed batch as a pass sees it.

use std::mem;

use super::{
    attention::{Place, Shape},
    rotary::Angles,
};
use crate::{model::ModelSpec, trainer::batch::PackedBatch};

/// Where each token stands, and what attention makes of it.
#[derive(Debug)]
pub(super) struct Sequences<'a> {
    pub(super) tokens: &'a [u32],
    pub(super) lengths: &'a [usize],
    pub(super) places: Vec<Place>,
    pub(super) shape: Shape,
    pub(super) angles: Angles,
}

impl<'a> Sequences<'a> {
    pub(super) fn new(spec: &ModelSpec, batch: &'a PackedBatch) -> Self {
        let mut places = Vec::with_capacity(batch.tokens.len());
        let mut start = 0;
        for &length in &batch.lengths {
            places.extend((0..length).map(|position| Place { start, length, position }));
            start += length;
        }
        let longest = batch.lengths.iter().copied().max().unwrap_or(0);
        let shape = Shape {
            heads: spec.num_heads,
            kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            window: spec.sliding_window.unwrap_or(usize::MAX),
        };
        let (tokens, lengths) = (&batch.tokens[..], &batch.lengths[..]);
        Self { tokens, lengths, places, shape, angles: Angles::new(spec, longest) }
    }

    /// Returns how many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tasks of attention: each sequence's first token and length, with each KV head.
    pub(super) fn tasks(&self) -> impl Iterator<Item = Task> + '_ {
        let mut start = 0;
        let sequences = self.lengths.iter().map(move |&length| {
            start += length;
            (start - length, length)
        });
        sequences.flat_map(|(start, length)| {
            (0..self.shape.kv_heads).map(move |kv_head| Task { start, length, kv_head })
        })
    }
}

/// One sequence and one KV head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) start: usize,
    pub(super) length: usize,
    pub(super) kv_head: usize,
}

impl Task {
    /// This sequence's rows of a matrix of all tokens.
    pub(super) fn rows<'r, T>(&self, matrix: &'r [T], width: usize) -> &'r [T] {
        &matrix[self.start * width..(self.start + self.length) * width]
    }

    /// The next task's part of a buffer in which the parts of all tasks lie one after the other.
    pub(super) fn part<'r, T>(&self, rest: &mut &'r mut [T], width: usize) -> &'r mut [T] {
        let (part, others) = mem::take(rest).split_at_mut(self.length * width);
        *rest = others;
        part
    }
}
