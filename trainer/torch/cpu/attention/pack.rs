//! From heads in rows of tokens to what the tiles take. What lies beyond the last token, or the last dimension, is 0.

use super::tile::ROWS;
use crate::{simd::Element, trainer::torch::cpu::workspace::zeros};

/// One head of each token of a sequence.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, E> {
    /// Rows of the sequence's tokens, from this head's first dimension on.
    pub(super) rows: &'a [E],
    /// From one token to the next.
    pub(super) stride: usize,
    pub(super) dims: usize,
    pub(super) tokens: usize,
}

impl<'a, E: Element> Head<'a, E> {
    #[inline(always)]
    fn token(&self, token: usize) -> &'a [E] {
        &self.rows[token * self.stride..][..self.dims]
    }

    /// The sum over dimensions of the products with another head of a token.
    #[inline(always)]
    pub(super) fn dot(&self, other: &Self, token: usize) -> f32 {
        let mut sum = 0.0;
        for (a, b) in self.token(token).iter().zip(other.token(token)) {
            sum += a.wide() * b.wide();
        }
        sum
    }

    /// `[tokens / ROWS, dims, ROWS]`: panels whose rows are tokens.
    #[inline(always)]
    pub(super) fn token_panels<'o>(&self, out: &'o mut Vec<f32>) -> &'o [f32] {
        let panels = self.tokens.div_ceil(ROWS);
        let out = zeros(out, panels * self.dims * ROWS);
        for token in 0..self.tokens {
            let panel = &mut out[token / ROWS * self.dims * ROWS..][..self.dims * ROWS];
            for (column, x) in panel.chunks_exact_mut(ROWS).zip(self.token(token)) {
                column[token % ROWS] = x.wide();
            }
        }
        out
    }

    /// `[dims / ROWS, tokens, ROWS]`: panels whose rows are dimensions; tokens are rounded up to whole panels, too.
    #[inline(always)]
    pub(super) fn dim_panels<'o>(&self, out: &'o mut Vec<f32>) -> &'o [f32] {
        let (panels, tokens) = (self.dims.div_ceil(ROWS), self.tokens.next_multiple_of(ROWS));
        let out = zeros(out, panels * tokens * ROWS);
        for token in 0..self.tokens {
            for (panel, part) in self.token(token).chunks(ROWS).enumerate() {
                let column = &mut out[(panel * tokens + token) * ROWS..][..ROWS];
                for (to, x) in column.iter_mut().zip(part) {
                    *to = x.wide();
                }
            }
        }
        out
    }

    /// `[dims, lanes]`: tokens from `start` on in lanes, times a factor.
    #[inline(always)]
    pub(super) fn in_lanes<'o>(
        &self,
        start: usize,
        lanes: usize,
        factor: f32,
        out: &'o mut Vec<f32>,
    ) -> &'o [f32] {
        let out = zeros(out, self.dims * lanes);
        for (lane, token) in (start..self.tokens).take(lanes).enumerate() {
            for (row, x) in out.chunks_exact_mut(lanes).zip(self.token(token)) {
                row[lane] = x.wide() * factor;
            }
        }
        out
    }

    /// `[dims / lanes, lanes, lanes]`: the same tokens as rows, cut into pieces of dimensions.
    #[inline(always)]
    pub(super) fn in_rows<'o>(
        &self,
        start: usize,
        lanes: usize,
        out: &'o mut Vec<f32>,
    ) -> &'o [f32] {
        let out = zeros(out, self.dims.div_ceil(lanes) * lanes * lanes);
        for (row, token) in (start..self.tokens).take(lanes).enumerate() {
            for (piece, part) in self.token(token).chunks(lanes).enumerate() {
                let to = &mut out[(piece * lanes + row) * lanes..][..lanes];
                for (to, x) in to.iter_mut().zip(part) {
                    *to = x.wide();
                }
            }
        }
        out
    }
}
