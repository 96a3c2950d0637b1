//! The parts of a transformer layer.

use std::ops::Range;

use tch::Tensor;

use super::{
    Result,
    attention::Attention,
    packed::{Packed, Rows},
};

/// `x W^T + b`, W being `[out, in]`, and what an adapter adds.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    pub(super) adapter: Option<Adapter>,
}

impl Linear {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = x.f_linear(&self.weight, self.bias.as_ref())?;
        match &self.adapter {
            Some(adapter) => Ok(product.f_add(&adapter.forward(x, product.size()[1])?)?),
            None => Ok(product),
        }
    }
}

/// `scale (x A^T) B^T` (Hu et al., 2021), for each part of the outputs that has it.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) a: Tensor,
    /// B of one part below that of the other.
    pub(super) b: Tensor,
    /// The outputs that each part is for.
    pub(super) parts: Vec<Range<usize>>,
    pub(super) rank: usize,
    pub(super) scale: f64,
}

impl Adapter {
    fn forward(&self, x: &Tensor, outputs: i64) -> Result<Tensor> {
        let low = x.f_linear(&self.a, None::<&Tensor>)?.f_mul_scalar(self.scale)?;
        let gap = |width: i64| Tensor::f_zeros([x.size()[0], width], (x.kind(), x.device()));
        let mut columns = Vec::new();
        let (mut row, mut end) = (0, 0);
        for (n, range) in self.parts.iter().enumerate() {
            columns.push(gap(range.start as i64 - end)?);
            let low = low.f_narrow(1, (n * self.rank) as i64, self.rank as i64)?;
            let b = self.b.f_narrow(0, row, range.len() as i64)?;
            columns.push(low.f_linear(&b, None::<&Tensor>)?);
            (row, end) = (row + range.len() as i64, range.end as i64);
        }
        columns.push(gap(outputs - end)?);
        Ok(Tensor::f_cat(&columns, 1)?)
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension, in f32 inside (Zhang and Sennrich, 2019).
#[derive(Debug)]
pub(super) struct Norm {
    pub(super) weight: Tensor,
    pub(super) eps: f64,
}

impl Norm {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_rms_norm(self.weight.size(), Some(&self.weight), self.eps)?)
    }
}

/// One layer: attention, then a gated feed-forward part, each on a normalised copy of the residual stream.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) attention_norm: Norm,
    pub(super) attention: Attention,
    pub(super) mlp_norm: Norm,
    /// Rows of up, then of gate.
    pub(super) up_gate: Linear,
    pub(super) down: Linear,
}

impl Layer {
    /// Maps the residual stream `[tokens, hidden]` to the next one; of the wanted rows only, if the layer is the last.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        packed: &Packed,
        rows: Option<&Rows>,
    ) -> Result<Tensor> {
        let mixed = self.attention.forward(&self.attention_norm.forward(x)?, packed, rows)?;
        let x = match rows {
            Some(rows) => x.f_index_select(0, &rows.packed)?.f_add(&mixed)?,
            None => x.f_add(&mixed)?,
        };
        let both = self.up_gate.forward(&self.mlp_norm.forward(&x)?)?.f_chunk(2, 1)?;
        let inner = both[1].f_silu()?.f_mul(&both[0])?;
        Ok(x.f_add(&self.down.forward(&inner)?)?)
    }
}
