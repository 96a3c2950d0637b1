//! Passes over the whole vocabulary: plain loops, compiled for each instruction set.
//!
//! Every lane is written out, and nothing is fused, so all sets give the same bits: the same tokens everywhere.

use crate::simd::{Op, Set};

/// Ids whose weights are summed in one go.
pub(super) const BLOCK: usize = 256;

/// The most likely id, the lowest among equals, and its logit; `None` when a logit is not a number, infinite, or every
/// one is minus infinity.
pub(super) struct MostLikely<'a> {
    pub(super) logits: &'a [f32],
}

impl Op for MostLikely<'_> {
    type Output = Option<(u32, f32)>;

    #[inline(always)]
    fn run<K: Set>(self, _: K) -> Self::Output {
        // In sixteen lanes, so that it vectorises. Minus infinity is a forbidden token, and fine.
        let (chunks, rest) = self.logits.as_chunks::<16>();
        let mut lanes = [f32::NEG_INFINITY; 16];
        let mut bad = [false; 16];
        let mut look = |lane: usize, logit: f32| {
            lanes[lane] = if logit > lanes[lane] { logit } else { lanes[lane] };
            bad[lane] |= logit.is_nan() | (logit == f32::INFINITY);
        };
        for chunk in chunks {
            (0..16).for_each(|lane| look(lane, chunk[lane]));
        }
        rest.iter().for_each(|&logit| look(0, logit));
        let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
        if bad.contains(&true) || max == f32::NEG_INFINITY {
            return None;
        }
        // Block by block, so that all but the last are searched without a branch for each id.
        let has = |block: &[f32]| block.iter().fold(false, |has, &logit| has | (logit == max));
        let block = self.logits.chunks(BLOCK).position(has)?;
        let within = self.logits[block * BLOCK..].iter().position(|&logit| logit == max)?;
        Some(((block * BLOCK + within) as u32, max))
    }
}

/// Fills `weights` with `exp((logit - max) / temperature)` and `sums` with the sums of its blocks.
pub(super) struct Weigh<'a> {
    pub(super) logits: &'a [f32],
    pub(super) max: f32,
    pub(super) temperature: f32,
    pub(super) weights: &'a mut Vec<f32>,
    pub(super) sums: &'a mut Vec<f64>,
}

impl Op for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, _: K) {
        let Self { logits, max, temperature, weights, sums } = self;
        weights.resize(logits.len(), 0.0);
        sums.clear();
        for (weights, logits) in weights.chunks_mut(BLOCK).zip(logits.chunks(BLOCK)) {
            for (weight, logit) in weights.iter_mut().zip(logits) {
                *weight = exp((logit - max) / temperature);
            }
            sums.push(block_sum(weights));
        }
    }
}

/// `ln softmax(logits)[id]`; `None` when a logit is not a number.
pub(super) struct LogSoftmax<'a> {
    pub(super) logits: &'a [f32],
    pub(super) id: u32,
}

impl Op for LogSoftmax<'_> {
    type Output = Option<f32>;

    #[inline(always)]
    fn run<K: Set>(self, set: K) -> Option<f32> {
        let Self { logits, id } = self;
        let (_, max) = MostLikely { logits }.run(set)?;
        let mut weights = [0.0; BLOCK];
        let mut total = 0.0;
        for block in logits.chunks(BLOCK) {
            for (weight, &logit) in weights.iter_mut().zip(block) {
                *weight = exp(logit - max);
            }
            total += block_sum(&weights[..block.len()]);
        }
        Some((f64::from(logits[id as usize] - max) - total.ln()) as f32)
    }
}

/// Sums in eight lanes, then the lanes in order: a fixed order that vector units can follow.
#[inline(always)]
fn block_sum(weights: &[f32]) -> f64 {
    let (chunks, rest) = weights.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for chunk in chunks {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *lane += weight;
        }
    }
    lanes.iter().chain(rest).map(|&weight| f64::from(weight)).sum()
}

/// Returns `e^x` for `x <= 0`, 0 below -87, within 2 units in the last place.
///
/// Written out, rather than taken from the platform, so that every machine draws the same tokens, and so that it
/// vectorises. `e^x = 2^n e^r` with `|r| <= ln 2 / 2`; the polynomial is that of Cephes' `expf` (Moshier, 1989).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    let bounded = if x < -87.0 { -87.0 } else { x };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first short enough for n times it to be exact.
    let r = bounded - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + coefficient;
    }
    let mantissa = p * r * r + r + 1.0;
    let power = f32::from_bits((n as i32 + 127).cast_unsigned() << 23);
    if x < -87.0 { 0.0 } else { mantissa * power }
}
