//! Attention of tokens over the paged KV cache: scores, softmax, weighted sum, each in the order of positions.
//!
//! The order does not depend on how positions fall into blocks, nor on who computes the other tokens.

mod keys;
mod values;

use std::sync::Mutex;

use crate::{
    engine::native::BlockId,
    ffi::team::{Disjoint, Team},
    simd::{Element, Kernels, Op, Set, narrow},
};

use super::pointwise::softmax;
use keys::Keys;
pub(crate) use keys::StoreKey;
use values::Values;

/// Tasks of each thread: late tokens see more than early ones, and cost more.
const TASKS: usize = 8;

/// Sizes that are the same for all tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionShape {
    /// Query heads that share a KV head.
    pub(crate) group: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) block_size: usize,
    /// How many positions a token sees, itself included.
    pub(crate) window: usize,
}

/// One layer's KV cache.
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a, E> {
    /// `[block, kv_head]` of what [`StoreKey`] writes.
    pub(crate) keys: &'a [E],
    /// `[block, kv_head, position in block, head_dim]`
    pub(crate) values: &'a [E],
}

/// Attention of all tokens of a pass.
#[derive(Clone, Copy)]
pub(crate) struct Attention<'a, E> {
    pub(crate) shape: AttentionShape,
    pub(crate) cached: Cached<'a, E>,
    /// One row for each token, of which the queries come first: `[kv_heads, group, head_dim]`.
    pub(crate) queries: &'a [f32],
    pub(crate) tokens: usize,
}

/// Room for what one thread computes on the way.
#[derive(Debug, Default)]
pub(crate) struct Scratch<E> {
    /// `[group, head_dim]`, as they go into products.
    queries: Vec<E>,
    /// `[group, positions of all blocks]`
    scores: Vec<f32>,
    /// What each head's weights are to be multiplied by.
    norms: Vec<f32>,
}

impl Kernels {
    /// Computes attention; `out` is `[tokens, kv_heads, group, head_dim]`. `seen` says of a token in which blocks its
    /// sequence is, and at which position the token. There is a scratch for each thread, never waited for.
    pub(crate) fn attend<'b, E: Element>(
        self,
        team: &mut Team,
        attention: Attention<'_, E>,
        seen: impl Fn(usize) -> (&'b [BlockId], usize) + Sync,
        scratch: &[Mutex<Scratch<E>>],
        out: &mut [E],
    ) {
        let Attention { shape, cached, queries, tokens } = attention;
        let (units, unit) = (tokens * shape.kv_heads, shape.group * shape.head_dim);
        let per_task = units.div_ceil(TASKS * team.threads());
        let tasks = units.div_ceil(per_task.max(1));
        let out = &Disjoint::new(out);
        team.run(tasks, &|thread, index| {
            let mut scratch = scratch[thread].lock().expect("no task panics with the lock");
            // The late tokens, which see most, before the early ones.
            let first = (tasks - 1 - index) * per_task;
            for index in first..(first + per_task).min(units) {
                // Head by head: what a head keeps of a long sequence stays near while its tokens pass by.
                let (kv_head, token) = (index / tokens, index % tokens);
                let (blocks, position) = seen(token);
                let row = queries.len() / tokens * token;
                let start = (token * shape.kv_heads + kv_head) * unit;
                self.run(Attend {
                    shape,
                    cached,
                    blocks,
                    position,
                    kv_head,
                    queries: &queries[row + kv_head * unit..][..unit],
                    scratch: &mut scratch,
                    // SAFETY: each unit is one task's, and comes once.
                    out: unsafe { out.part(start..start + unit) },
                });
            }
        });
    }
}

/// One token and one KV head: the queries of the heads that share it.
struct Attend<'a, E> {
    shape: AttentionShape,
    cached: Cached<'a, E>,
    blocks: &'a [BlockId],
    position: usize,
    kv_head: usize,
    /// `[group, head_dim]`
    queries: &'a [f32],
    scratch: &'a mut Scratch<E>,
    /// `[group, head_dim]`
    out: &'a mut [E],
}

impl<E: Element> Op for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let Self { shape, cached, kv_head, .. } = self;
        let AttentionShape { group, head_dim, block_size, .. } = shape;
        let first = (self.position + 1).saturating_sub(shape.window);
        let (skip, count) = (first % block_size, self.position + 1 - first);
        let blocks = &self.blocks[first / block_size..=self.position / block_size];
        let Scratch { mut queries, mut scores, mut norms } = std::mem::take(self.scratch);
        queries.resize(self.queries.len(), E::zeroed());
        narrow(self.queries, &mut queries);
        let stride = blocks.len() * block_size;
        scores.resize(group * stride, 0.0);
        let keys = Keys { shape, numbers: cached.keys, blocks, kv_head };
        keys.score(E::product(set), &queries, &mut scores);
        let scale = 1.0 / (head_dim as f32).sqrt();
        norms.clear();
        for scores in scores.chunks_exact_mut(stride) {
            norms.push(softmax(set.simd(), &mut scores[skip..][..count], scale));
        }
        let values = Values { shape, numbers: cached.values, blocks, kv_head, skip, count };
        values.weigh(set.simd(), &scores, &norms, self.out);
        *self.scratch = Scratch { queries, scores, norms };
    }
}
