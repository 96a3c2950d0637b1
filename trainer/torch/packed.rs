//! A packed batch as the forward pass wants it: indices and rotary angles on the device.

use tch::{Kind, Tensor};

use super::{Error, Result};
use crate::{model::ModelSpec, trainer::batch::PackedBatch};

/// Rows of the residual stream that are wanted at the end.
#[derive(Debug)]
pub(super) struct Rows {
    /// As indices into the packed tokens.
    pub(super) packed: Tensor,
    /// As indices into the padded grid that attention works on.
    pub(super) padded: Tensor,
    pub(super) len: usize,
}

/// Indices between the packed tokens (no padding, for everything per token) and the padded grid of `sequences` x
/// `longest` (for attention). Padding stands on the right, where causality keeps it from every real token.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) tokens: Tensor,
    pub(super) sequences: i64,
    pub(super) longest: i64,
    /// Grid to packed; `None` when there is no padding, so that both are the same.
    pub(super) pad: Option<Tensor>,
    /// Packed to grid.
    pub(super) unpad: Option<Tensor>,
    /// Added to attention scores: keeps out what lies beyond the sliding window. `None` when none does.
    pub(super) window: Option<Tensor>,
    /// `[longest, 1, head_dim]`, as is `sin`, whose first half is negated (see [`rotate`](super::attention)).
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

impl Packed {
    pub(super) fn new(
        spec: &ModelSpec,
        batch: &PackedBatch,
        options: (Kind, tch::Device),
    ) -> Result<Self> {
        check(spec, batch)?;
        let device = options.1;
        let longest = batch.lengths.iter().copied().max().unwrap_or_default();
        let tokens: Vec<i64> = batch.tokens.iter().map(|&token| i64::from(token)).collect();
        let padded = batch.lengths.iter().any(|&length| length != longest);
        let (cos, sin) = rotary(spec, longest, options)?;
        Ok(Self {
            tokens: indices(&tokens, device)?,
            sequences: batch.lengths.len() as i64,
            longest: longest as i64,
            pad: padded.then(|| indices(&pad(batch, longest), device)).transpose()?,
            unpad: padded.then(|| indices(&grid(batch, longest), device)).transpose()?,
            window: window(spec, longest, options)?,
            cos,
            sin,
        })
    }

    /// Returns where these rows of the packed tokens lie.
    pub(super) fn rows(batch: &PackedBatch, rows: &[usize], device: tch::Device) -> Result<Rows> {
        check_rows(batch, rows)?;
        let longest = batch.lengths.iter().copied().max().unwrap_or_default();
        let grid = grid(batch, longest);
        let packed: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let padded: Vec<i64> = rows.iter().map(|&row| grid[row]).collect();
        let (packed, padded) = (indices(&packed, device)?, indices(&padded, device)?);
        Ok(Rows { packed, padded, len: rows.len() })
    }
}

pub(super) fn check(spec: &ModelSpec, batch: &PackedBatch) -> Result<()> {
    let total: usize = batch.lengths.iter().sum();
    if total != batch.tokens.len() || batch.lengths.contains(&0) {
        let rule = format!("positive and add up to {} tokens", batch.tokens.len());
        return Err(Error::input("lengths", rule, total));
    }
    if let Some(length) = batch.lengths.iter().find(|&&length| length > spec.max_positions) {
        let rule = format!("at most the model's context of {}", spec.max_positions);
        return Err(Error::input("sequence length", rule, length));
    }
    if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= spec.vocab_size) {
        return Err(Error::input(
            "token",
            format!("below the vocabulary's {}", spec.vocab_size),
            token,
        ));
    }
    Ok(())
}

pub(super) fn check_rows(batch: &PackedBatch, rows: &[usize]) -> Result<()> {
    match rows.iter().find(|&&row| row >= batch.tokens.len()) {
        None => Ok(()),
        Some(row) => {
            let rule = format!("a row below {}", batch.tokens.len());
            Err(Error::input("selected", rule, row))
        }
    }
}

pub(super) fn indices(values: &[i64], device: tch::Device) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(values)?.f_to_device(device)?)
}

/// Each packed token's place in the grid.
fn grid(batch: &PackedBatch, longest: usize) -> Vec<i64> {
    let sequences = batch.lengths.iter().enumerate();
    sequences
        .flat_map(|(i, &length)| (0..length).map(move |at| (i * longest + at) as i64))
        .collect()
}

/// Each grid place's packed token; any token will do for padding, so the sequence's last.
fn pad(batch: &PackedBatch, longest: usize) -> Vec<i64> {
    let mut start = 0;
    let mut places = Vec::with_capacity(batch.lengths.len() * longest);
    for &length in &batch.lengths {
        places.extend((0..longest).map(|at| (start + at.min(length - 1)) as i64));
        start += length;
    }
    places
}

fn rotary(
    spec: &ModelSpec,
    longest: usize,
    (kind, device): (Kind, tch::Device),
) -> Result<(Tensor, Tensor)> {
    let positions: Vec<f32> = (0..longest).map(|position| position as f32).collect();
    let positions = Tensor::f_from_slice(&positions)?;
    let angles =
        positions.f_outer(&Tensor::f_from_slice(&spec.rope_frequencies())?)?.f_unsqueeze(1)?;
    let (cos, sin) = (angles.f_cos()?, angles.f_sin()?);
    let place = |halves: [&Tensor; 2]| -> Result<Tensor> {
        Ok(Tensor::f_cat(&halves, -1)?.f_to_kind(kind)?.f_to_device(device)?)
    };
    Ok((place([&cos, &cos])?, place([&sin.f_neg()?, &sin])?))
}

/// 0 where `query - window < key <= query`, minus infinity elsewhere.
fn window(
    spec: &ModelSpec,
    longest: usize,
    options: (Kind, tch::Device),
) -> Result<Option<Tensor>> {
    let Some(window) = spec.sliding_window.filter(|&window| window < longest) else {
        return Ok(None);
    };
    let longest = longest as i64;
    let seen = Tensor::f_ones([longest, longest], (Kind::Bool, options.1))?;
    let seen = seen.f_tril(0)?.f_triu(1 - window as i64)?;
    let mask = Tensor::f_zeros([longest, longest], options)?;
    Ok(Some(mask.f_masked_fill(&seen.f_logical_not()?, f64::NEG_INFINITY)?))
}
