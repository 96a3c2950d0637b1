//! Between the rows of a product and the heads of attention: norms of q and k, rotations, and the way back.

use super::{
    attention::{Place, Shape},
    pointwise::rms_norm_back,
};
use crate::{
    model::ModelSpec,
    simd::{Element, Op, Set, inverse_rms},
};

/// Cosines and sines of positions (Su et al., 2021).
#[derive(Debug, Default)]
pub(super) struct Angles {
    half: usize,
    /// `[positions, half]`
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    pub(super) fn new(spec: &ModelSpec, positions: usize) -> Self {
        let frequencies = spec.rope_frequencies();
        let half = frequencies.len();
        let mut angles = Self { half, cos: Vec::new(), sin: Vec::new() };
        for position in 0..positions {
            for frequency in &frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                angles.cos.push(cos);
                angles.sin.push(sin);
            }
        }
        angles
    }

    #[inline(always)]
    fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let range = position * self.half..(position + 1) * self.half;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Weights of the norms of q's and k's heads, with their epsilon.
#[derive(Debug)]
pub(super) struct HeadNorms<'a, E> {
    pub(super) q: &'a [E],
    pub(super) k: &'a [E],
    pub(super) eps: f32,
}

/// Normalises (where there are weights) and rotates q and k of some tokens, in place. Dimensions i and
/// i + `head_dim` / 2 are a pair.
pub(super) struct Rotate<'a, E> {
    pub(super) shape: Shape,
    pub(super) angles: &'a Angles,
    pub(super) norms: Option<&'a HeadNorms<'a, E>>,
    pub(super) places: &'a [Place],
    /// `[tokens, q + k + v]`
    pub(super) qkv: &'a mut [E],
}

impl<E: Element> Op for Rotate<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let mut wide = vec![0.0; head_dim];
        for (row, place) in self.qkv.chunks_exact_mut(self.shape.qkv()).zip(self.places) {
            let (cos, sin) = self.angles.at(place.position);
            for (index, head) in row.chunks_exact_mut(head_dim).take(heads + kv_heads).enumerate() {
                for (wide, x) in wide.iter_mut().zip(&*head) {
                    *wide = x.wide();
                }
                if let Some(norms) = self.norms {
                    let weight = if index < heads { norms.q } else { norms.k };
                    let scale = inverse_rms(set.simd(), &wide, norms.eps);
                    for (x, weight) in wide.iter_mut().zip(weight) {
                        *x = *x * scale * weight.wide();
                    }
                }
                turn(&mut wide, cos, sin, 1.0);
                crate::simd::narrow(&wide, head);
            }
        }
    }
}

/// Rotates a head by its position's angles, or, with `direction` -1, back.
#[inline(always)]
fn turn(head: &mut [f32], cos: &[f32], sin: &[f32], direction: f32) {
    let (first, second) = head.split_at_mut(cos.len());
    for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
        let sin = sin * direction;
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// The way back through [`Rotate`], from heads to rows.
pub(super) struct RotateBack<'a, E> {
    pub(super) shape: Shape,
    pub(super) angles: &'a Angles,
    pub(super) norms: Option<&'a HeadNorms<'a, E>>,
    pub(super) places: &'a [Place],
    /// q, k and v of these tokens before they were normalised; empty where they are not.
    pub(super) raw: &'a [E],
    /// Of all tokens, as attention's way back leaves it.
    pub(super) d_heads: &'a [f32],
    /// `[tokens, q + k + v]`
    pub(super) d_qkv: &'a mut [E],
    /// Of the weights of q's norm, then of k's.
    pub(super) d_norms: &'a mut [f32],
}

impl<E: Element> Op for RotateBack<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let width = self.shape.qkv();
        self.d_norms.fill(0.0);
        let mut slope = vec![0.0; head_dim];
        let (mut x, mut d_x) = (vec![0.0; head_dim], vec![0.0; head_dim]);
        for (token, (d_row, place)) in
            self.d_qkv.chunks_exact_mut(width).zip(self.places).enumerate()
        {
            let (cos, sin) = self.angles.at(place.position);
            for (index, d_head) in d_row.chunks_exact_mut(head_dim).enumerate() {
                let from = &self.d_heads[self.shape.gradient_of(place, index)..][..head_dim];
                if index >= heads + kv_heads {
                    crate::simd::narrow(from, d_head); // values pass through
                    continue;
                }
                slope.copy_from_slice(from);
                turn(&mut slope, cos, sin, -1.0);
                let Some(norms) = self.norms else {
                    crate::simd::narrow(&slope, d_head);
                    continue;
                };
                let (d_q, d_k) = self.d_norms.split_at_mut(head_dim);
                let (weight, d_weight) =
                    if index < heads { (norms.q, d_q) } else { (norms.k, d_k) };
                let raw = &self.raw[token * width + index * head_dim..][..head_dim];
                for (wide, raw) in x.iter_mut().zip(raw) {
                    *wide = raw.wide();
                }
                rms_norm_back(set.simd(), &x, (weight, norms.eps), &slope, &mut d_x, d_weight);
                crate::simd::narrow(&d_x, d_head);
            }
        }
    }
}

/// Puts the heads of some tokens side by side, as they come from attention.
pub(super) struct Interleave<'a, E> {
    pub(super) shape: Shape,
    pub(super) places: &'a [Place],
    /// Of all tokens.
    pub(super) heads: &'a [E],
    /// `[tokens, q]`
    pub(super) mixed: &'a mut [E],
}

impl<E: Element> Op for Interleave<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        let d = self.shape.head_dim;
        for (row, place) in self.mixed.chunks_exact_mut(self.shape.q()).zip(self.places) {
            for (head, to) in row.chunks_exact_mut(d).enumerate() {
                to.copy_from_slice(&self.heads[self.shape.output_of(place, head)..][..d]);
            }
        }
    }
}
