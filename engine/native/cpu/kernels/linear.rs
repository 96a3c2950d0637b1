//! Linear layers, their columns shared out among the team.

use std::ops::Range;

use crate::{
    ffi::team::{Disjoint, Team},
    simd::{Element, Kernels},
};

use super::{
    gemm::{COLUMN_BLOCK, Columns, Gemm},
    pointwise::SiluMul,
};

/// A weight matrix `[out, in]`, and a bias where there is one.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a, E> {
    pub(crate) weight: &'a [E],
    pub(crate) bias: Option<&'a [E]>,
}

/// Linear layers of the same input, whose outputs lie side by side: `y = [x W₁ᵀ + b₁, x W₂ᵀ + b₂, ...]`.
pub(crate) struct Linears<'a, E> {
    /// `[rows, depth]`
    pub(crate) x: &'a [E],
    pub(crate) depth: usize,
    pub(crate) layers: &'a [Linear<'a, E>],
    /// Whether the result is added to what is there.
    pub(crate) add: bool,
}

/// The first half of a gated feed-forward layer: `silu(x Gᵀ) · (x Uᵀ)`.
pub(crate) struct GateUp<'a, E> {
    /// `[rows, depth]`
    pub(crate) x: &'a [E],
    pub(crate) depth: usize,
    pub(crate) gate: Linear<'a, E>,
    pub(crate) up: Linear<'a, E>,
}

impl<'a, E> Linear<'a, E> {
    fn outputs(&self, depth: usize) -> usize {
        self.weight.len() / depth
    }

    fn part(&self, depth: usize, columns: Range<usize>) -> Self {
        Self {
            weight: &self.weight[columns.start * depth..columns.end * depth],
            bias: self.bias.map(|bias| &bias[columns]),
        }
    }
}

/// Tasks of each thread: enough for one that was held up to leave some to the others.
const TASKS: usize = 4;

/// Returns the columns of a task: whole blocks, shared out evenly.
fn share(columns: usize, index: usize, tasks: usize) -> Range<usize> {
    let cut = |index: usize| (columns * index / tasks).next_multiple_of(COLUMN_BLOCK).min(columns);
    cut(index)..cut(index + 1)
}

impl<'a, E: Element> Linears<'a, E> {
    /// Returns the weights from a column of the output on, to the end of its layer; none after the last.
    fn weights(&self, mut column: usize) -> &'a [E] {
        for layer in self.layers {
            let outputs = layer.outputs(self.depth);
            if column < outputs {
                return &layer.weight[column * self.depth..];
            }
            column -= outputs;
        }
        &[]
    }
}

impl Kernels {
    /// Computes linear layers side by side; `out` is `[rows, all their outputs]`.
    pub(crate) fn linears<E: Element>(
        self,
        team: &mut Team,
        layers: &Linears<'_, E>,
        out: &mut [f32],
    ) {
        let (x, depth, add) = (layers.x, layers.depth, layers.add);
        let stride = layers.layers.iter().map(|layer| layer.outputs(depth)).sum();
        let (threads, tasks) = (team.threads(), TASKS * team.threads());
        let matrix = &Disjoint::new(out);
        team.run(tasks, &|_, index| {
            let task = share(stride, index, tasks);
            // Most often every thread takes one task in turn.
            let then = share(stride, index + threads, tasks).start;
            let mut first = 0;
            for layer in layers.layers {
                let end = first + layer.outputs(depth);
                let columns = task.start.clamp(first, end)..task.end.clamp(first, end);
                if !columns.is_empty() {
                    let then = if columns.end < task.end { columns.end } else { then };
                    // Tasks do not overlap: this is what `Columns` asks for.
                    let out = Columns { matrix, stride, first: columns.start };
                    let Linear { weight: w, bias } =
                        layer.part(depth, columns.start - first..columns.end - first);
                    self.run(Gemm {
                        x,
                        w,
                        depth,
                        bias,
                        add,
                        next: Some(layers.weights(then)),
                        out,
                    });
                }
                first = end;
            }
        });
    }

    /// Computes the gated product; `gate`, `up` and `out` are `[rows, outputs]`, the first two for passing results.
    pub(crate) fn gate_up<E: Element>(
        self,
        team: &mut Team,
        layer: &GateUp<'_, E>,
        [gate, up]: [&mut [f32]; 2],
        out: &mut [E],
    ) {
        let (x, depth) = (layer.x, layer.depth);
        let outputs = layer.gate.outputs(depth);
        let (threads, tasks) = (team.threads(), TASKS * team.threads());
        let (gates, ups, outs) = (&Disjoint::new(gate), &Disjoint::new(up), &Disjoint::new(out));
        team.run(tasks, &|_, index| {
            let columns = share(outputs, index, tasks);
            let [gate, up] = [layer.gate, layer.up].map(|half| half.part(depth, columns.clone()));
            let then = layer.gate.part(depth, share(outputs, index + threads, tasks)).weight;
            for (half, next, matrix) in [(gate, up.weight, gates), (up, then, ups)] {
                let out = Columns { matrix, stride: outputs, first: columns.start };
                let Linear { weight: w, bias } = half;
                self.run(Gemm { x, w, depth, bias, add: false, next: Some(next), out });
            }
            for row in 0..x.len() / depth {
                let part = row * outputs + columns.start..row * outputs + columns.end;
                // SAFETY: these columns are this task's alone, and the product above is done with them.
                let gate = unsafe { gates.part(part.clone()) };
                // SAFETY: as above.
                let up = unsafe { ups.part(part.clone()) };
                // SAFETY: as above; nobody else writes here.
                let out = unsafe { outs.part(part) };
                self.run(SiluMul { gate, up, out });
            }
        });
    }
}
