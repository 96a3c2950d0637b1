//! Where keys and values of past positions are kept: blocks of positions, layer by layer.

use crate::{
    engine::{Error, native::BlockId},
    ffi::allocator::in_huge_pages,
    model::ModelSpec,
};

use super::kernels::{Cached, StoreKey};
use crate::simd::{Element, Kernels, Narrow};

/// The paged KV cache: `[block, kv_head]` per layer of what the kernels keep of keys and of values.
#[derive(Debug)]
pub(super) struct KvCache<E> {
    layers: Vec<[Vec<E>; 2]>,
    kv_heads: usize,
    head_dim: usize,
    pub(super) block_size: usize,
}

impl<E: Element> KvCache<E> {
    /// Allocates blocks in the format of the weights.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub(super) fn new(spec: &ModelSpec, blocks: usize, block_size: usize) -> Result<Self, Error> {
        let numbers = blocks.checked_mul(block_size).and_then(|n| n.checked_mul(spec.kv_size()));
        let layer = || Some([zeros(numbers?)?, zeros(numbers?)?]);
        let layers =
            (0..spec.num_layers).map(|_| layer()).collect::<Option<_>>().ok_or_else(|| {
                let positions = blocks.saturating_mul(block_size);
                Error::Model(format!("not enough memory for a KV cache of {positions} tokens"))
            })?;
        Ok(Self { layers, kv_heads: spec.num_kv_heads, head_dim: spec.head_dim, block_size })
    }

    /// Returns one layer's keys and values.
    pub(super) fn layer(&self, layer: usize) -> Cached<'_, E> {
        let [keys, values] = &self.layers[layer];
        Cached { keys, values }
    }

    /// Keeps one token's key and value of one layer, `[kv_head, head_dim]` each.
    pub(super) fn store(
        &mut self,
        kernels: Kernels,
        layer: usize,
        at: (BlockId, usize),
        [key, value]: [&[f32]; 2],
    ) {
        let Self { kv_heads, head_dim, block_size, .. } = *self;
        let size = block_size * head_dim;
        let (first, position) = (at.0.0 as usize * kv_heads * size, at.1);
        let [keys, values] = &mut self.layers[layer];
        let pairs = key.chunks_exact(head_dim).zip(value.chunks_exact(head_dim));
        for (head, (key, value)) in pairs.enumerate() {
            let start = first + head * size;
            let block = &mut keys[start..][..size];
            kernels.run(StoreKey { key, position, block_size, block });
            let to = &mut values[start + position * head_dim..][..head_dim];
            kernels.run(Narrow { from: value, to });
        }
    }

    /// Copies one block over another, in all layers.
    pub(super) fn copy_block(&mut self, from: BlockId, to: BlockId) {
        let size = self.kv_heads * self.block_size * self.head_dim;
        let (from, to) = (from.0 as usize * size, to.0 as usize * size);
        for numbers in self.layers.iter_mut().flatten() {
            numbers.copy_within(from..from + size, to);
        }
    }
}

/// Allocates zeros, or says that it cannot.
fn zeros<T: bytemuck::Zeroable + Clone>(count: usize) -> Option<Vec<T>> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(count).ok()?;
    in_huge_pages(numbers.spare_capacity_mut());
    numbers.resize(count, T::zeroed());
    Some(numbers)
}
