//! Keys as the cache holds them, and the scores of queries against them.
//!
//! Within a block positions lie side by side, `[head_dim / per_lane, position, per_lane]`, so that a register holds as
//! many of them as it has lanes: one piece of a query multiplies them all, and nothing is summed across a register.

use bytemuck::Zeroable;

use crate::{
    engine::native::BlockId,
    simd::{Element, Op, Product, Set, Simd, chunks, padded, unpad},
};

use super::AttentionShape;

/// Numbers of a key that lie side by side: as many as a product takes for one lane.
const fn per_lane<P: Product>() -> usize {
    size_of::<P::Chunk>() / size_of::<P::Number>() / <P::Simd as Simd>::LANES
}

/// Keeps one token's key of one head.
pub(crate) struct StoreKey<'a, E> {
    /// `[head_dim]`; an even number of them, as rotation takes them in pairs.
    pub(crate) key: &'a [f32],
    /// Position in the block.
    pub(crate) position: usize,
    pub(crate) block_size: usize,
    /// The head's part of the block.
    pub(crate) block: &'a mut [E],
}

impl<E: Element> Op for StoreKey<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        let width = const { per_lane::<E::Product<K>>() };
        for (piece, numbers) in self.key.chunks_exact(width).enumerate() {
            let start = (piece * self.block_size + self.position) * width;
            for (to, x) in self.block[start..].iter_mut().zip(numbers) {
                *to = E::of(*x);
            }
        }
    }
}

/// The keys of one KV head, block by block.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a, E> {
    pub(super) shape: AttentionShape,
    pub(super) numbers: &'a [E],
    pub(super) blocks: &'a [BlockId],
    pub(super) kv_head: usize,
}

impl<'a, E: Element> Keys<'a, E> {
    #[inline(always)]
    fn block(&self, index: usize) -> &'a [E] {
        let AttentionShape { kv_heads, block_size, head_dim, .. } = self.shape;
        let block = self.blocks[index].0 as usize;
        let size = block_size * head_dim;
        &self.numbers[(block * kv_heads + self.kv_head) * size..][..size]
    }

    /// Fills `[group, positions of the blocks]` scores, `q · k`: each sums over dimensions in their order.
    /// `queries` is `[group, head_dim]`.
    #[inline(always)]
    pub(super) fn score<P: Product<Number = E>>(
        &self,
        product: P,
        queries: &[E],
        scores: &mut [f32],
    ) {
        let (head_dim, stride) = (self.shape.head_dim, self.blocks.len() * self.shape.block_size);
        let mut head = 0;
        while head < self.shape.group {
            let (queries, scores) = (&queries[head * head_dim..], &mut scores[head * stride..]);
            head += match (self.shape.group - head, <P::Simd as Simd>::MANY_REGISTERS) {
                (1, true) => self.heads::<P, 1, 4>(product, queries, scores),
                (2, true) => self.heads::<P, 2, 4>(product, queries, scores),
                (3, true) => self.heads::<P, 3, 4>(product, queries, scores),
                (_, true) => self.heads::<P, 4, 4>(product, queries, scores),
                (1, false) => self.heads::<P, 1, 2>(product, queries, scores),
                (_, false) => self.heads::<P, 2, 2>(product, queries, scores),
            };
        }
    }

    /// Computes the scores of `H` heads, `N` registers of positions at a time, and returns `H`.
    #[inline(always)]
    fn heads<P: Product<Number = E>, const H: usize, const N: usize>(
        &self,
        product: P,
        queries: &[E],
        scores: &mut [f32],
    ) -> usize {
        let (block_size, lanes) = (self.shape.block_size, <P::Simd as Simd>::LANES);
        let in_block = block_size / lanes;
        let strips = self.blocks.len() * in_block;
        let mut strip = 0;
        while strips - strip >= N {
            self.strips::<P, H, N>(product, queries, strip, scores);
            strip += N;
        }
        while strip < strips {
            self.strips::<P, H, 1>(product, queries, strip, scores);
            strip += 1;
        }
        if block_size > in_block * lanes {
            for block in 0..self.blocks.len() {
                self.last_positions::<P, H>(product, queries, block, scores);
            }
        }
        H
    }

    /// Computes the scores of `N` registers of positions.
    #[inline(always)]
    fn strips<P: Product<Number = E>, const H: usize, const N: usize>(
        &self,
        product: P,
        queries: &[E],
        first: usize,
        scores: &mut [f32],
    ) {
        let simd = product.simd();
        let (block_size, lanes) = (self.shape.block_size, <P::Simd as Simd>::LANES);
        let stride = self.blocks.len() * block_size;
        let (width, in_block) = (const { per_lane::<P>() }, block_size / lanes);
        // No closures where there are registers: those are compiled without the instruction set.
        let (mut keys, mut starts): ([&[E]; N], [usize; N]) = ([&[]; N], [0; N]);
        for n in 0..N {
            let (block, start) = ((first + n) / in_block, (first + n) % in_block * lanes);
            keys[n] = &self.block(block)[start * width..];
            starts[n] = block * block_size + start;
        }
        let mut sums = [[simd.splat(0.0); N]; H];
        for piece in 0..self.shape.head_dim / width {
            let mut held = [product.splat(&queries[piece * width..]); H];
            for h in 1..H {
                held[h] = product.splat(&queries[h * self.shape.head_dim + piece * width..]);
            }
            for n in 0..N {
                let positions = &keys[n][piece * block_size * width..][..lanes * width];
                let positions = product.load(&chunks::<E, P::Chunk>(positions)[0]);
                for h in 0..H {
                    sums[h][n] = product.mul_add(held[h], positions, sums[h][n]);
                }
            }
        }
        for h in 0..H {
            for n in 0..N {
                let scores = &mut scores[h * stride + starts[n]..][..lanes];
                simd.store(sums[h][n], bytemuck::from_bytes_mut(bytemuck::cast_slice_mut(scores)));
            }
        }
    }

    /// Computes the scores of the positions after a block's last whole register.
    #[inline(always)]
    fn last_positions<P: Product<Number = E>, const H: usize>(
        &self,
        product: P,
        queries: &[E],
        block: usize,
        scores: &mut [f32],
    ) {
        let simd = product.simd();
        let (block_size, width) = (self.shape.block_size, const { per_lane::<P>() });
        let stride = self.blocks.len() * block_size;
        let mut sums = [simd.splat(0.0); H];
        for (piece, positions) in self.block(block).chunks_exact(block_size * width).enumerate() {
            let Some(positions) = padded::<E, P::Chunk>(positions) else { return };
            let positions = product.load(&positions);
            for h in 0..H {
                let query = &queries[h * self.shape.head_dim + piece * width..];
                sums[h] = product.mul_add(product.splat(query), positions, sums[h]);
            }
        }
        for h in 0..H {
            let mut rest = <P::Simd as Simd>::Chunk::zeroed();
            simd.store(sums[h], &mut rest);
            unpad(&rest, &mut scores[h * stride + block * block_size..][..block_size]);
        }
    }
}
