//! The parts of a transformer layer.

use tch::Tensor;

use super::{
    Result,
    attention::Attention,
    packed::{Packed, Rows},
};

/// `x W^T + b`, W being `[out, in]`.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
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
