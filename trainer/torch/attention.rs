//! Causal self-attention with grouped heads, rotary positions and, where the family has them, biases and q/k norms.

use tch::Tensor;

use super::{
    Result,
    layer::{Linear, Norm},
    packed::{Packed, Rows},
};
use crate::model::ModelSpec;

/// The attention part of a layer.
#[derive(Debug)]
pub(super) struct Attention {
    pub(super) qkv: Linear,
    pub(super) output: Linear,
    pub(super) q_norm: Option<Norm>,
    pub(super) k_norm: Option<Norm>,
    pub(super) shape: Shape,
}

/// Heads and their size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
}

impl From<&ModelSpec> for Shape {
    fn from(spec: &ModelSpec) -> Self {
        Self {
            heads: spec.num_heads as i64,
            kv_heads: spec.num_kv_heads as i64,
            head_dim: spec.head_dim as i64,
        }
    }
}

impl Attention {
    /// Maps `[tokens, hidden]` to `[tokens, hidden]`, or to the wanted rows only.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        packed: &Packed,
        rows: Option<&Rows>,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(x)?;
        let qkv = match &packed.pad {
            Some(pad) => qkv.f_index_select(0, pad)?,
            None => qkv,
        };
        let mixed = self.mix(&qkv, packed)?;
        let mixed = match (rows, &packed.unpad) {
            (Some(rows), _) => mixed.f_index_select(0, &rows.padded)?,
            (None, Some(unpad)) => mixed.f_index_select(0, unpad)?,
            (None, None) => mixed,
        };
        self.output.forward(&mixed)
    }

    /// Maps `[grid, q + k + v]` to `[grid, q]`.
    fn mix(&self, qkv: &Tensor, packed: &Packed) -> Result<Tensor> {
        let Shape { heads, kv_heads, head_dim } = self.shape;
        let (q_size, kv_size) = (heads * head_dim, kv_heads * head_dim);
        let parts = qkv.f_split_with_sizes([q_size, kv_size, kv_size], 1)?;
        let heads_of = |part: &Tensor, heads: i64| {
            part.f_reshape([packed.sequences, packed.longest, heads, head_dim])
        };
        let q = rotate(&normed(&self.q_norm, heads_of(&parts[0], heads)?)?, packed)?;
        let k = rotate(&normed(&self.k_norm, heads_of(&parts[1], kv_heads)?)?, packed)?;
        let k = self.repeat(&k)?;
        let v = self.repeat(&heads_of(&parts[2], kv_heads)?)?;
        let mixed = Tensor::f_scaled_dot_product_attention(
            &q.f_transpose(1, 2)?,
            &k.f_transpose(1, 2)?,
            &v.f_transpose(1, 2)?,
            packed.window.as_ref(),
            0.0,
            packed.window.is_none(),
            None,
            false,
        )?;
        Ok(mixed.f_transpose(1, 2)?.f_reshape([packed.sequences * packed.longest, q_size])?)
    }

    /// Gives each query head a key (or value) head of its own: libtorch's fused CPU kernel does not know groups.
    fn repeat(&self, x: &Tensor) -> Result<Tensor> {
        let Shape { heads, kv_heads, head_dim } = self.shape;
        if heads == kv_heads {
            return Ok(x.shallow_clone());
        }
        let size = x.size();
        let shape = [size[0], size[1], kv_heads, heads / kv_heads, head_dim];
        Ok(x.f_unsqueeze(3)?
            .f_expand(shape, false)?
            .f_reshape([size[0], size[1], heads, head_dim])?)
    }
}

fn normed(norm: &Option<Norm>, x: Tensor) -> Result<Tensor> {
    match norm {
        Some(norm) => norm.forward(&x),
        None => Ok(x),
    }
}

/// Turns each pair `(x_i, x_{i + d/2})` by its position's angle (Su et al., 2021, with halves as in Llama):
/// `x * cos + swap_halves(x) * sin`, the first half of `sin` being negated.
fn rotate(x: &Tensor, packed: &Packed) -> Result<Tensor> {
    let half = x.size()[3] / 2;
    Ok(x.f_mul(&packed.cos)?.f_addcmul(&x.f_roll([half], [-1])?, &packed.sin)?)
}
