//! Where keys and values of past positions are kept: blocks of positions, layer by layer.

use half::bf16;

use crate::{
    engine::{Error, native::BlockId},
    model::ModelSpec,
    rollout::Dtype,
};

use super::kernels::{Cached, Values};

/// The paged KV cache, `[block, kv_head, position in block, head_dim]` per layer, for keys and for values.
#[derive(Debug)]
pub(super) struct KvCache {
    layers: Vec<[Numbers; 2]>,
    kv_heads: usize,
    head_dim: usize,
    pub(super) block_size: usize,
}

#[derive(Debug)]
enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl KvCache {
    /// Allocates blocks in the format of the weights.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub(super) fn new(
        spec: &ModelSpec,
        dtype: Dtype,
        blocks: usize,
        block_size: usize,
    ) -> Result<Self, Error> {
        let numbers = blocks.checked_mul(block_size).and_then(|n| n.checked_mul(spec.kv_size()));
        let layer = || {
            let numbers = numbers?;
            Some([Numbers::new(dtype, numbers)?, Numbers::new(dtype, numbers)?])
        };
        let layers =
            (0..spec.num_layers).map(|_| layer()).collect::<Option<_>>().ok_or_else(|| {
                let positions = blocks.saturating_mul(block_size);
                Error::Model(format!("not enough memory for a KV cache of {positions} tokens"))
            })?;
        Ok(Self { layers, kv_heads: spec.num_kv_heads, head_dim: spec.head_dim, block_size })
    }

    /// Returns one layer's keys and values.
    pub(super) fn layer(&self, layer: usize) -> Cached<'_> {
        let [keys, values] = &self.layers[layer];
        Cached { keys: keys.view(), values: values.view() }
    }

    /// Keeps one token's key and value of one layer, `[kv_head, head_dim]` each.
    pub(super) fn store(&mut self, layer: usize, at: (BlockId, usize), key: &[f32], value: &[f32]) {
        let first = at.0.0 as usize * self.kv_heads * self.block_size + at.1;
        let [keys, values] = &mut self.layers[layer];
        for (numbers, new) in [(keys, key), (values, value)] {
            for (head, new) in new.chunks_exact(self.head_dim).enumerate() {
                numbers.store((first + head * self.block_size) * self.head_dim, new);
            }
        }
    }

    /// Copies one block over another, in all layers.
    pub(super) fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let size = self.kv_heads * self.block_size * self.head_dim;
        let (from, to) = (from.0 as usize * size, to.0 as usize * size);
        for numbers in self.layers.iter_mut().flatten() {
            match numbers {
                Numbers::F32(numbers) => numbers.copy_within(from..from + size, to),
                Numbers::Bf16(numbers) => numbers.copy_within(from..from + size, to),
            }
        }
    }
}

impl Numbers {
    fn new(dtype: Dtype, count: usize) -> Option<Self> {
        Some(match dtype {
            Dtype::Bf16 => Self::Bf16(zeros(count)?),
            Dtype::F32 | Dtype::F16 => Self::F32(zeros(count)?),
        })
    }

    fn view(&self) -> Values<'_> {
        match self {
            Self::F32(numbers) => Values::F32(numbers),
            Self::Bf16(numbers) => Values::Bf16(numbers),
        }
    }

    fn store(&mut self, start: usize, new: &[f32]) {
        match self {
            Self::F32(numbers) => numbers[start..][..new.len()].copy_from_slice(new),
            Self::Bf16(numbers) => {
                let to = &mut numbers[start..][..new.len()];
                to.iter_mut().zip(new).for_each(|(to, new)| *to = bf16::from_f32(*new));
            }
        }
    }
}

/// Allocates zeros, or says that it cannot.
fn zeros<T: bytemuck::Zeroable + Clone>(count: usize) -> Option<Vec<T>> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(count).ok()?;
    numbers.resize(count, T::zeroed());
    Some(numbers)
}
