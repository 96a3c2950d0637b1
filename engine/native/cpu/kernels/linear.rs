//! Linear layers, their columns shared out among the team.

use std::ops::Range;

use half::bf16;

use crate::ffi::team::{Disjoint, Team};

use super::{
    Kernels, Values,
    gemm::{COLUMN_BLOCK, Columns, Gemm},
    pointwise::SiluMul,
};

/// A weight matrix `[out, in]`, and a bias where there is one.
#[derive(Clone, Copy)]
pub(crate) struct Linear<'a> {
    pub(crate) weight: Values<'a>,
    pub(crate) bias: Option<Values<'a>>,
}

/// Linear layers of the same input, whose outputs lie side by side: `y = [x W₁ᵀ + b₁, x W₂ᵀ + b₂, ...]`.
pub(crate) struct Linears<'a> {
    /// `[rows, depth]`
    pub(crate) x: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) layers: &'a [Linear<'a>],
    /// Whether the result is added to what is there.
    pub(crate) add: bool,
}

/// The first half of a gated feed-forward layer: `silu(x Gᵀ) · (x Uᵀ)`.
pub(crate) struct GateUp<'a> {
    /// `[rows, depth]`
    pub(crate) x: &'a [f32],
    pub(crate) depth: usize,
    pub(crate) gate: Linear<'a>,
    pub(crate) up: Linear<'a>,
    /// Whether to round to bf16.
    pub(crate) round: bool,
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::Bf16(numbers) => numbers.len(),
        }
    }

    fn part(&self, range: Range<usize>) -> Self {
        match self {
            Self::F32(numbers) => Self::F32(&numbers[range]),
            Self::Bf16(numbers) => Self::Bf16(&numbers[range]),
        }
    }
}

impl Linear<'_> {
    fn outputs(&self, depth: usize) -> usize {
        self.weight.len() / depth
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
    pub(crate) fn linears(self, team: &mut Team, layers: &Linears<'_>, out: &mut [f32]) {
        let depth = layers.depth;
        let outputs = layers.layers.iter().map(|layer| layer.outputs(depth));
        let stride = outputs.clone().sum();
        let slices = slices(outputs, team.threads());
        let matrix = &Disjoint::new(out);
        team.run(slices.len(), &|_, index| {
            let Slice { layer, columns, first } = &slices[index];
            // Slices do not overlap and each is one task's: this is what `Columns` asks for.
            let out = Columns { matrix, stride, first: first + columns.start };
            self.multiply(
                layers.x,
                depth,
                layers.layers[*layer],
                columns.clone(),
                (out, layers.add),
            );
        });
    }

    /// Computes the gated product; `gate` and `up` are `[rows, outputs]`, the result is in `gate`.
    pub(crate) fn gate_up(
        self,
        team: &mut Team,
        layer: &GateUp<'_>,
        gate: &mut [f32],
        up: &mut [f32],
    ) {
        let (x, depth) = (layer.x, layer.depth);
        let outputs = layer.gate.outputs(depth);
        let slices = slices(std::iter::once(outputs), team.threads());
        let (gates, ups) = (&Disjoint::new(gate), &Disjoint::new(up));
        team.run(slices.len(), &|_, index| {
            let columns = &slices[index].columns;
            let target =
                |matrix| (Columns { matrix, stride: outputs, first: columns.start }, false);
            self.multiply(x, depth, layer.gate, columns.clone(), target(gates));
            self.multiply(x, depth, layer.up, columns.clone(), target(ups));
            for row in 0..x.len() / depth {
                let part = row * outputs + columns.start..row * outputs + columns.end;
                // SAFETY: these columns are this task's alone, and the product above is done with them.
                let gate = unsafe { gates.part(part.clone()) };
                // SAFETY: as above.
                let up = unsafe { ups.part(part) };
                self.run(SiluMul { gate, up, round: layer.round });
            }
        });
    }

    /// Computes some columns of one layer.
    fn multiply(
        self,
        x: &[f32],
        depth: usize,
        layer: Linear<'_>,
        columns: Range<usize>,
        (out, add): (Columns<'_>, bool),
    ) {
        let bias = layer.bias.map(|bias| bias.part(columns.clone()));
        match layer.weight.part(columns.start * depth..columns.end * depth) {
            Values::F32(w) => self.run(Gemm::<f32> { x, w, depth, bias, add, out }),
            Values::Bf16(w) => self.run(Gemm::<bf16> { x, w, depth, bias, add, out }),
        }
    }
}
