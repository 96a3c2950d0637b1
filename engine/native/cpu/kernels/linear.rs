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

/// Columns of one layer: a task.
struct Slice {
    layer: usize,
    columns: Range<usize>,
    /// Where the layer's first column is in the output.
    first: usize,
}

/// Cuts layers of these many columns into slices, four or so per thread.
fn slices(outputs: impl Iterator<Item = usize> + Clone, threads: usize) -> Vec<Slice> {
    let total: usize = outputs.clone().sum();
    let width = total.div_ceil(4 * threads).next_multiple_of(COLUMN_BLOCK);
    let mut slices = Vec::with_capacity(4 * threads + 3);
    let mut first = 0;
    for (layer, outputs) in outputs.enumerate() {
        slices.extend((0..outputs).step_by(width).map(|start| Slice {
            layer,
            columns: start..(start + width).min(outputs),
            first,
        }));
        first += outputs;
    }
    slices
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
        let outputs = layers.layers.iter().map(|layer| layer.outputs(depth));
        let stride = outputs.clone().sum();
        let slices = slices(outputs, team.threads());
        let matrix = &Disjoint::new(out);
        team.run(slices.len(), &|_, index| {
            let Slice { layer, columns, first } = &slices[index];
            // Slices do not overlap and each is one task's: this is what `Columns` asks for.
            let out = Columns { matrix, stride, first: first + columns.start };
            let Linear { weight: w, bias } = layers.layers[*layer].part(depth, columns.clone());
            self.run(Gemm { x, w, depth, bias, add, far: true, out });
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
        let slices = slices(std::iter::once(outputs), team.threads());
        let (gates, ups, outs) = (&Disjoint::new(gate), &Disjoint::new(up), &Disjoint::new(out));
        team.run(slices.len(), &|_, index| {
            let columns = &slices[index].columns;
            for (linear, matrix) in [(layer.gate, gates), (layer.up, ups)] {
                let out = Columns { matrix, stride: outputs, first: columns.start };
                let Linear { weight: w, bias } = linear.part(depth, columns.clone());
                self.run(Gemm { x, w, depth, bias, add: false, far: true, out });
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
