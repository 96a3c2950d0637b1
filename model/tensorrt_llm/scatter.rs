//! From the tensors of all ranks back to those of Hugging Face.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use rayon::prelude::*;

use super::{
    Error, Layout, Piece,
    error::{Result, rule},
    gather::{read, width},
    tensors,
};
use crate::{
    ffi::memory::{Lease, Reading},
    model::{ModelSpec, convert::filled},
    rollout::{Dtype, TensorSpec, WeightTensor, Weights},
};

/// Where a rectangle of a Hugging Face tensor lies on a rank.
struct Place {
    rank: usize,
    /// The TensorRT-LLM name.
    tensor: String,
    /// The first row there.
    row: usize,
    /// The rows and columns here.
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Puts a model together again from what each rank holds, under TensorRT-LLM names. Padding is dropped.
///
/// # Errors
/// When a rank's tensors are not those of the layout, or what several ranks hold alike differs in any bit.
pub fn scatter(spec: &ModelSpec, layout: &Layout, ranks: &[Weights]) -> Result<Weights> {
    layout.check(spec)?;
    let wanted = layout.tensor_parallel;
    rule(ranks.len() == wanted, "ranks", format!("{wanted}, as tensor_parallel"), ranks.len())?;
    let places = places(spec, layout, ranks)?;
    let readings = ranks.iter().map(read).collect::<Result<Vec<_>>>()?;
    let whole = Whole { ranks, readings, lease: Lease::default() };
    let tensors: BTreeMap<String, WeightTensor> = spec
        .tensors()
        .into_par_iter()
        .map(|tensor| {
            let places = places.get(&tensor.name).map_or(&[][..], Vec::as_slice);
            Ok((tensor.name.clone(), whole.tensor(tensor, places)?))
        })
        .collect::<Result<_>>()?;
    Ok(Weights::new(ranks[0].version(), whole.lease, tensors))
}

/// Turns the map around, and checks that each rank holds what it says.
fn places(
    spec: &ModelSpec,
    layout: &Layout,
    ranks: &[Weights],
) -> Result<HashMap<String, Vec<Place>>> {
    let mut places: HashMap<String, Vec<Place>> = HashMap::new();
    for (rank, weights) in ranks.iter().enumerate() {
        let list = tensors(spec, layout, rank)?;
        let specs: Vec<TensorSpec> = list.iter().map(super::Mapped::spec).collect();
        let coverage = weights.check_coverage(&specs);
        coverage.map_err(|reason| Error::Coverage { rank, reason })?;
        for mapped in list {
            let mut row = 0;
            for piece in mapped.pieces {
                let after = row + piece.rows();
                if let Piece::Of { tensor: source, rows, columns } = piece {
                    let place = Place { rank, tensor: mapped.name.clone(), row, rows, columns };
                    places.entry(source).or_default().push(place);
                }
                row = after;
            }
        }
    }
    Ok(places)
}

struct Whole<'a> {
    ranks: &'a [Weights],
    readings: Vec<Reading>,
    lease: Lease,
}

impl Whole<'_> {
    fn tensor(&self, spec: TensorSpec, places: &[Place]) -> Result<WeightTensor> {
        let dtype = self.dtype(&spec.name, places)?;
        let stride = spec.shape.get(1).copied().unwrap_or(1) * dtype.size();
        let elements = spec.shape.iter().product();
        let memory = filled(dtype, elements, &self.lease, |out| {
            for place in places {
                self.each_row(place, stride, |range, row| out[range].copy_from_slice(row))?;
            }
            // What lies on several ranks was written several times: each of them must agree with the last.
            for place in places {
                let mut agrees = true;
                self.each_row(place, stride, |range, row| agrees &= out[range] == *row)?;
                if !agrees {
                    let problem = format!(
                        "must be the same wherever {} lies, got other numbers on rank {}",
                        spec.name, place.rank
                    );
                    return Err(Error::tensor(&place.tensor, problem));
                }
            }
            Ok(())
        })?;
        Ok(WeightTensor { dtype, shape: spec.shape, memory })
    }

    /// Returns the format that every piece of a tensor must be in.
    fn dtype(&self, name: &str, places: &[Place]) -> Result<Dtype> {
        let first = places.first().ok_or_else(|| Error::tensor(name, "lies on no rank"))?;
        let dtype = self.source(first)?.dtype;
        for place in places {
            let got = self.source(place)?.dtype;
            if got != dtype {
                let problem =
                    format!("must be {dtype}, as elsewhere, got {got} on rank {}", place.rank);
                return Err(Error::tensor(&place.tensor, problem));
            }
        }
        Ok(dtype)
    }

    fn source(&self, place: &Place) -> Result<&WeightTensor> {
        let found = self.ranks[place.rank].get(&place.tensor);
        found.ok_or_else(|| {
            Error::tensor(&place.tensor, format!("is missing on rank {}", place.rank))
        })
    }

    /// Shows each row of a place: the bytes it takes in the whole tensor, and the row itself.
    fn each_row(
        &self,
        place: &Place,
        stride: usize,
        mut visit: impl FnMut(Range<usize>, &[u8]),
    ) -> Result<()> {
        let source = self.source(place)?;
        let size = source.dtype.size();
        let bytes = source.memory.bytes(&self.readings[place.rank]);
        let rows = bytes.chunks(width(source) * size).skip(place.row);
        for (number, row) in place.rows.clone().zip(rows) {
            let start = number * stride + place.columns.start * size;
            visit(start..start + row.len(), row);
        }
        Ok(())
    }
}
