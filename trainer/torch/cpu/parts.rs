//! The parts that a layer is made of, shared out among threads.

use std::ops::Range;

use super::{
    attention::{Attend, AttendBack, Group},
    compute::{Crew, Format, rows_of_a_part},
    pass::Pass,
    pointwise::{Add, AddBias, Gather, RmsNormBack, SiluMul, SiluMulBack, SumRows},
    rotary::{HeadNorms, Interleave, Rotate, RotateBack},
    slots::{LayerSlots, Linear},
    workspace::{LayerTrace, room, zeros},
};
use crate::{
    ffi::torch_matmul::{Matrix, multiply},
    simd::{Narrow, RmsNorm},
    trainer::torch::Result,
};

/// Columns of a bias whose gradient one kernel sums.
const COLUMNS: usize = 256;

impl<E: Format> Pass<'_, E> {
    /// `x W^T + b` for each row.
    pub(super) fn linear(
        &self,
        x: &[E],
        slots: &Linear,
        out: &mut [E],
        crew: &mut Crew,
    ) -> Result<()> {
        let weight = Matrix::new(&self.weights[slots.weight.clone()], slots.inputs);
        multiply(Matrix::new(x, slots.inputs), weight.t(), out)?;
        if let Some(bias) = &slots.bias {
            let bias = &self.weights[bias.clone()];
            let rows = out.chunks_mut(rows_of_a_part(slots.outputs) * slots.outputs);
            crew.each(rows.map(|rows| AddBias { rows, bias }));
        }
        match &slots.adapter {
            Some(adapter) => self.adapter(x, adapter, (out, slots.outputs)),
            None => Ok(()),
        }
    }

    /// The way back: writes `d_x = d_out W`, adds `d_out^T x` to the gradient where the weight learns; `scratch` is room
    /// for that.
    pub(super) fn linear_back(
        &self,
        slots: &Linear,
        (x, d_out): (&[E], &[E]),
        d_x: &mut [E],
        (gradient, scratch): (&mut [f32], &mut Vec<E>),
        crew: &mut Crew,
    ) -> Result<()> {
        let weight = Matrix::new(&self.weights[slots.weight.clone()], slots.inputs);
        let d_rows = Matrix::new(d_out, slots.outputs);
        multiply(d_rows, weight, d_x)?;
        // The gradient ends before what does not learn.
        if let Some(sums) = gradient.get_mut(slots.weight.clone()) {
            E::accumulate(d_rows.t(), Matrix::new(x, slots.inputs), sums, scratch, crew)?;
        }
        if let Some(sums) = slots.bias.clone().and_then(|bias| gradient.get_mut(bias)) {
            crew.each(sums.chunks_mut(COLUMNS).enumerate().map(|(n, sums)| SumRows {
                rows: d_out,
                width: slots.outputs,
                start: n * COLUMNS,
                sums,
            }));
        }
        match &slots.adapter {
            Some(adapter) => self.adapter_back(
                adapter,
                (x, d_out, slots.outputs),
                d_x,
                (gradient, scratch),
                crew,
            ),
            None => Ok(()),
        }
    }

    pub(super) fn norm<'o>(
        &self,
        x: &[f32],
        weight: &Range<usize>,
        out: &'o mut Vec<E>,
        crew: &mut Crew,
    ) -> &'o [E] {
        let (weight, eps) = (&self.weights[weight.clone()], self.spec.rms_norm_eps as f32);
        let out = room(out, x.len());
        let step = rows_of_a_part(weight.len()) * weight.len();
        let parts = x.chunks(step).zip(out.chunks_mut(step));
        crew.each(parts.map(|(x, out)| RmsNorm { x, weight, eps, out }));
        out
    }

    /// The way back: adds to the derivative with respect to `x`, and to the gradient; `scratch` is room for that.
    pub(super) fn norm_back(
        &self,
        x: &[f32],
        weight: &Range<usize>,
        (d_out, d_x): (&[E], &mut [f32]),
        (gradient, scratch): (&mut [f32], &mut Vec<f32>),
        crew: &mut Crew,
    ) {
        let sums = gradient.get_mut(weight.clone());
        let (weight, eps) = (&self.weights[weight.clone()], self.spec.rms_norm_eps as f32);
        let width = weight.len();
        let step = rows_of_a_part(width) * width;
        let partial = room(scratch, x.len().div_ceil(step) * width);
        let parts = x.chunks(step).zip(d_out.chunks(step)).zip(d_x.chunks_mut(step));
        crew.each(parts.zip(partial.chunks_mut(width)).map(|(((x, d_out), d_x), d_weight)| {
            RmsNormBack { x, weight, eps, d_out, d_x, d_weight }
        }));
        if let Some(sums) = sums {
            add_up(partial, sums);
        }
    }

    pub(super) fn gate<'o>(&self, up_gate: &[E], out: &'o mut Vec<E>, crew: &mut Crew) -> &'o [E] {
        let width = self.spec.intermediate_size;
        let out = room(out, up_gate.len() / 2);
        let step = rows_of_a_part(2 * width) * width;
        let parts = up_gate.chunks(2 * step).zip(out.chunks_mut(step));
        crew.each(parts.map(|(up_gate, out)| SiluMul { up_gate, width, out }));
        out
    }

    pub(super) fn gate_back(
        &self,
        up_gate: &[E],
        d_out: &[E],
        d_up_gate: &mut [E],
        crew: &mut Crew,
    ) {
        let width = self.spec.intermediate_size;
        let step = rows_of_a_part(2 * width) * width;
        let parts = up_gate.chunks(2 * step).zip(d_out.chunks(step));
        crew.each(
            parts.zip(d_up_gate.chunks_mut(2 * step)).map(|((up_gate, d_out), d_up_gate)| {
                SiluMulBack { up_gate, width, d_out, d_up_gate }
            }),
        );
    }

    fn head_norms(&self, slots: &LayerSlots) -> Option<HeadNorms<'_, E>> {
        let [q, k] = slots.head_norms.as_ref()?;
        let weight = |range: &Range<usize>| &self.weights[range.clone()];
        Some(HeadNorms { q: weight(q), k: weight(k), eps: self.spec.rms_norm_eps as f32 })
    }

    /// Normalises and rotates q and k in place; `raw` keeps what they were, where they are normalised.
    pub(super) fn rotate(
        &self,
        slots: &LayerSlots,
        qkv: &mut [E],
        raw: &mut Vec<E>,
        crew: &mut Crew,
    ) {
        let norms = self.head_norms(slots);
        if norms.is_some() {
            room(raw, qkv.len()).copy_from_slice(qkv);
        }
        let (shape, angles, norms) = (self.sequences.shape, &self.sequences.angles, norms.as_ref());
        let rows = rows_of_a_part(shape.qkv());
        let parts = qkv.chunks_mut(rows * shape.qkv()).zip(self.sequences.places.chunks(rows));
        crew.each(parts.map(|(qkv, places)| Rotate { shape, angles, norms, places, qkv }));
    }

    /// The way back, from attention's heads to rows.
    pub(super) fn rotate_back(
        &self,
        slots: &LayerSlots,
        raw: &[E],
        (d_heads, d_qkv): (&[f32], &mut [E]),
        (gradient, scratch): (&mut [f32], &mut Vec<f32>),
        crew: &mut Crew,
    ) {
        let norms = self.head_norms(slots);
        let (shape, angles, norms) = (self.sequences.shape, &self.sequences.angles, norms.as_ref());
        let (width, both) = (shape.qkv(), 2 * shape.head_dim);
        let rows = rows_of_a_part(width);
        let partial = zeros(scratch, self.sequences.len().div_ceil(rows) * both);
        let parts = d_qkv.chunks_mut(rows * width).zip(self.sequences.places.chunks(rows));
        let parts = parts.zip(partial.chunks_mut(both)).enumerate();
        crew.each(parts.map(|(n, ((d_qkv, places), d_norms))| {
            let raw = raw.get(n * rows * width..).unwrap_or_default();
            RotateBack { shape, angles, norms, places, raw, d_heads, d_qkv, d_norms }
        }));
        if let Some([q, k]) = &slots.head_norms {
            let mut sums = vec![0.0; both];
            add_up(partial, &mut sums);
            let (d_q, d_k) = sums.split_at(shape.head_dim);
            for (slopes, range) in [(d_q, q), (d_k, k)] {
                if let Some(sums) = gradient.get_mut(range.clone()) {
                    add_up(slopes, sums);
                }
            }
        }
    }

    /// Attention of each sequence and KV head.
    pub(super) fn attend(
        &self,
        qkv: &[E],
        mut out: &mut [E],
        mut denominators: &mut [f32],
        crew: &mut Crew,
    ) {
        let shape = self.sequences.shape;
        let group = shape.group();
        let tasks = self.sequences.tasks().map(|task| {
            let qkv = task.rows(qkv, shape.qkv());
            let out = task.part(&mut out, group * shape.head_dim);
            let denominators = task.part(&mut denominators, group);
            (Group { shape, qkv, kv_head: task.kv_head }, out, denominators)
        });
        crew.each_with(tasks, |(group, out, denominators), scratch| Attend {
            group,
            out,
            denominators,
            scratch,
        });
    }

    /// The way back, from the derivative with respect to attention's output `[tokens, q]`.
    pub(super) fn attend_back(
        &self,
        trace: &LayerTrace<E>,
        mixed: &[E],
        d_mixed: &[E],
        mut d_heads: &mut [f32],
        crew: &mut Crew,
    ) {
        let shape = self.sequences.shape;
        let group = shape.group();
        let mut denominators = &trace.denominators[..self.sequences.len() * shape.heads];
        let tasks = self.sequences.tasks().map(|task| {
            let (own, others) = denominators.split_at(task.length * group);
            denominators = others;
            let qkv = task.rows(&trace.qkv, shape.qkv());
            let (mixed, d_mixed) = (task.rows(mixed, shape.q()), task.rows(d_mixed, shape.q()));
            let d_heads = task.part(&mut d_heads, (group + 2) * shape.head_dim);
            (Group { shape, qkv, kv_head: task.kv_head }, own, [mixed, d_mixed], d_heads)
        });
        crew.each_with(tasks, |(group, denominators, [mixed, d_mixed], d_heads), scratch| {
            AttendBack { group, denominators, mixed, d_mixed, d_heads, scratch }
        });
    }

    /// Puts attention's heads into rows of tokens.
    pub(super) fn interleave(&self, heads: &[E], mixed: &mut [E], crew: &mut Crew) {
        let shape = self.sequences.shape;
        let rows = rows_of_a_part(shape.q());
        let parts = mixed.chunks_mut(rows * shape.q()).zip(self.sequences.places.chunks(rows));
        crew.each(parts.map(|(mixed, places)| Interleave { shape, places, heads, mixed }));
    }

    /// Returns the rows that a layer goes on with: all but for the last layer, of which only some are wanted.
    pub(super) fn picked<'o, T: Copy + Default + Send + Sync>(
        &self,
        layer: usize,
        all: &'o [T],
        width: usize,
        buffer: &'o mut Vec<T>,
        crew: &mut Crew,
    ) -> &'o [T] {
        if !self.is_last(layer) {
            return all;
        }
        let out = room(buffer, self.wanted.len() * width);
        let rows = rows_of_a_part(width);
        let parts = out.chunks_mut(rows * width).zip(self.wanted.chunks(rows));
        crew.each(parts.map(|(out, rows)| Gather { from: all, rows, width, out }));
        out
    }

    /// The way back from [`Pass::picked`]: zeros where nothing was wanted.
    pub(super) fn scatter<'o, T: Copy + Default>(
        &self,
        picked: &[T],
        width: usize,
        buffer: &'o mut Vec<T>,
    ) -> &'o [T] {
        let all = zeros(buffer, self.sequences.len() * width);
        for (from, &row) in picked.chunks_exact(width).zip(self.wanted) {
            all[row * width..(row + 1) * width].copy_from_slice(from);
        }
        all
    }

    /// `out = x + y`
    pub(super) fn add(&self, x: &[f32], y: &[E], out: &mut [f32], crew: &mut Crew) {
        let step = rows_of_a_part(1);
        let parts = x.chunks(step).zip(y.chunks(step)).zip(out.chunks_mut(step));
        crew.each(parts.map(|((x, y), out)| Add { x, y, out }));
    }

    /// Returns numbers as products take them.
    pub(super) fn narrow<'o>(&self, from: &[f32], to: &'o mut Vec<E>, crew: &mut Crew) -> &'o [E] {
        let to = room(to, from.len());
        let step = rows_of_a_part(1);
        let parts = from.chunks(step).zip(to.chunks_mut(step));
        crew.each(parts.map(|(from, to)| Narrow { from, to }));
        to
    }
}

/// Adds rows of the sums' width up, in their order.
fn add_up(rows: &[f32], sums: &mut [f32]) {
    for row in rows.chunks_exact(sums.len()) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
}
