//! From Hugging Face tensors to those of a rank: in place where they lie so, by copying elsewhere.

use rayon::prelude::*;

use super::{Error, Layout, Mapped, Piece, error::Result, tensors};
use crate::{
    ffi::memory::{Location, Memory, Reading},
    model::{ModelSpec, convert, write::PATIENCE},
    rollout::{Dtype, WeightTensor, Weights},
};

impl Mapped {
    /// Returns this tensor's memory where the weights hold it as it is: its pieces in `dtype`, whole rows, one right
    /// after the other, on the host or on a device. `None` when it must be copied together.
    pub fn in_place(&self, weights: &Weights, dtype: Dtype) -> Option<Memory> {
        let lent = |piece: &Piece| {
            let Piece::Of { tensor, rows, columns } = piece else { return None };
            let source = weights.get(tensor).filter(|source| source.dtype == dtype)?;
            let width = width(source);
            let row = width * dtype.size();
            let part = source.memory.slice(rows.start * row..rows.end * row)?;
            (*columns == (0..width)).then_some(part)
        };
        Memory::joined(&self.pieces.iter().map(lent).collect::<Option<Vec<_>>>()?)
    }

    /// Copies this tensor together in `dtype`, into `out`, which has just the bytes it takes.
    ///
    /// # Errors
    /// When a tensor is missing, too small or on a device, or a number is too large for `dtype`.
    ///
    /// # Panics
    /// If `out` is of another length, or `reading` belongs to another lease.
    pub fn gather(
        &self,
        weights: &Weights,
        reading: &Reading,
        dtype: Dtype,
        out: &mut [u8],
    ) -> Result<()> {
        let row = self.width() * dtype.size();
        assert_eq!(out.len(), self.elements() * dtype.size(), "{}: bytes", self.name);
        let mut rest = out;
        for piece in &self.pieces {
            let (part, after) = rest.split_at_mut(piece.rows() * row);
            rest = after;
            self.copy(piece, weights, reading, (part, dtype))?;
        }
        Ok(())
    }

    fn copy(
        &self,
        piece: &Piece,
        weights: &Weights,
        reading: &Reading,
        (out, dtype): (&mut [u8], Dtype),
    ) -> Result<()> {
        let Piece::Of { tensor, rows, columns } = piece else {
            out.fill(0);
            return Ok(());
        };
        let source = self.source(piece, weights)?;
        let (bytes, size) = (source.memory.bytes(reading), source.dtype.size());
        let stride = width(source);
        let range = |row: usize, end: usize| (row * stride + columns.start) * size..end * size;
        if *columns == (0..stride) {
            let whole = &bytes[range(rows.start, rows.end * stride)];
            convert::convert_into(whole, source.dtype, out, dtype);
        } else {
            for (row, out) in rows.clone().zip(out.chunks_mut(columns.len() * dtype.size())) {
                let part = &bytes[range(row, row * stride + columns.end)];
                convert::convert_into(part, source.dtype, out, dtype);
            }
        }
        let converted = source.dtype != dtype;
        if let Some(index) = converted.then(|| convert::first_not_finite(out, dtype)).flatten() {
            let problem = format!(
                "has a number that is not finite in {dtype}, at index {index} of {}",
                self.name
            );
            return Err(Error::tensor(tensor, problem));
        }
        Ok(())
    }

    /// Finds the tensor that a piece is of, on the host and large enough.
    fn source<'a>(&self, piece: &Piece, weights: &'a Weights) -> Result<&'a WeightTensor> {
        let Piece::Of { tensor, rows, columns } = piece else {
            return Err(Error::tensor(&self.name, "has padding, which is of no tensor"));
        };
        let source = weights
            .get(tensor)
            .ok_or_else(|| Error::tensor(tensor, format!("is missing; {} needs it", self.name)))?;
        let height = source.shape.first().copied().unwrap_or(1);
        if rows.end > height || columns.end > width(source) {
            let problem = format!(
                "must have {} rows and {} columns for {}, got the shape {:?}",
                rows.end, columns.end, self.name, source.shape
            );
            return Err(Error::tensor(tensor, problem));
        }
        match source.memory.location() {
            Location::Host => Ok(source),
            Location::Cuda(device) => {
                let problem =
                    format!("must be on the host for {}, got CUDA device {device}", self.name);
                Err(Error::tensor(tensor, problem))
            }
        }
    }
}

/// Returns all that a rank holds, under the TensorRT-LLM names and the lease of `weights`: aliases where the weights lie
/// as the rank wants them, copies elsewhere.
///
/// # Errors
/// When the model cannot be cut so, the weights are not those of the model, or somebody keeps writing to them.
pub fn shard(
    spec: &ModelSpec,
    layout: &Layout,
    rank: usize,
    weights: &Weights,
    dtype: Dtype,
) -> Result<Weights> {
    let list = tensors(spec, layout, rank)?;
    let coverage = weights.check_coverage(&spec.tensors());
    coverage.map_err(|reason| Error::Coverage { rank, reason })?;
    let reading = read(weights)?;
    let one = |mapped: Mapped| {
        let memory = match mapped.in_place(weights, dtype) {
            Some(memory) => memory,
            None => convert::filled(dtype, mapped.elements(), weights.lease(), |out| {
                mapped.gather(weights, &reading, dtype, out)
            })?,
        };
        Ok((mapped.name, WeightTensor { dtype, shape: mapped.shape, memory }))
    };
    let tensors = list.into_par_iter().map(one).collect::<Result<_>>()?;
    Ok(Weights::new(weights.version(), weights.lease().clone(), tensors))
}

/// Waits for permission to read.
pub(super) fn read(weights: &Weights) -> Result<Reading> {
    let busy = crate::model::Error::Busy { seconds: PATIENCE.as_secs() };
    Ok(weights.lease().read(PATIENCE).ok_or(busy)?)
}

/// Returns the elements in a row: 1 for a vector.
pub(super) fn width(tensor: &WeightTensor) -> usize {
    tensor.shape.get(1).copied().unwrap_or(1)
}
