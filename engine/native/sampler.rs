//! Draws tokens. The same logits, history and key always give the same token: on any platform, in any batch.
//!
//! The order is that of transformers' `generate`: repetition penalty, forbidden ids, temperature, top-k, top-p, min-p.
//! (vLLM applies min-p before top-k and top-p, which differs where both are used.)

#[cfg(test)]
mod tests;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{engine::SamplingParams, rollout::PromptId};

/// What a random number is for. Equal keys give equal numbers, whatever was drawn before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The request's seed.
    pub(super) seed: u64,
    /// The prompt.
    pub(super) prompt: PromptId,
    /// Which of its samples.
    pub(super) sample: u32,
    /// Which token of the completion, from 0.
    pub(super) position: u64,
}

impl Key {
    /// Returns a number in `[0, 1)` with 53 random bits, out of ChaCha8 with the key's fields as its key and the
    /// position as its counter.
    fn uniform(self) -> f64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&self.prompt.0.to_le_bytes());
        key[16..20].copy_from_slice(&self.sample.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_word_pos(2 * u128::from(self.position));
        (random.next_u64() >> 11) as f64 * 2f64.powi(-53)
    }
}

/// One token to draw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw<'a> {
    /// Raw logits, one per token id.
    pub(super) logits: &'a [f32],
    /// How to draw.
    pub(super) sampling: &'a SamplingParams,
    /// Prompt and completion so far, for the repetition penalty.
    pub(super) history: &'a [u32],
    /// Ids that must not come now.
    pub(super) forbidden: &'a [u32],
    /// Where the randomness comes from.
    pub(super) key: Key,
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Drawn {
    /// Its id.
    pub(super) token: u32,
    /// Its log-probability under the distribution it was drawn from; 0 when greedy, which has no other choice.
    pub(super) logprob: f32,
    /// Its log-probability under the raw logits, where asked for.
    pub(super) raw_logprob: Option<f32>,
}

/// Buffers of one sampling thread, kept between draws.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    /// Logits after penalty and prohibition.
    logits: Vec<f32>,
    /// `exp((logit - max) / temperature)` of each id.
    weights: Vec<f32>,
    /// Ids that are left, where some were cut off.
    kept: Vec<u32>,
    /// Marks ids already penalised.
    seen: Vec<bool>,
}

/// Ids whose weights are summed in one go.
const BLOCK: usize = 256;

impl Sampler {
    /// Draws one token; `None` when a logit is not a number or no token is left to draw.
    pub(super) fn draw(&mut self, draw: &Draw<'_>) -> Option<Drawn> {
        let sampling = draw.sampling;
        self.logits.clear();
        self.logits.extend_from_slice(draw.logits);
        self.penalise(draw.history, sampling.repetition_penalty);
        for &id in draw.forbidden {
            self.logits[id as usize] = f32::NEG_INFINITY;
        }
        let (best, max) = most_likely(&self.logits)?;
        if sampling.temperature == 0.0 {
            let raw_logprob =
                sampling.raw_logprobs.then(|| log_softmax(draw.logits, best)).flatten();
            return Some(Drawn { token: best, logprob: 0.0, raw_logprob });
        }
        let total = self.weigh(max, sampling.temperature);
        let unmodified = sampling.temperature == 1.0
            && sampling.repetition_penalty == 1.0
            && draw.forbidden.is_empty();
        let (token, mass) = self.choose(sampling, total, draw.key.uniform());
        let log_weight = f64::from((self.logits[token as usize] - max) / sampling.temperature);
        let raw_logprob = match (sampling.raw_logprobs, unmodified) {
            (false, _) => None,
            (true, true) => Some((log_weight - total.ln()) as f32),
            (true, false) => Some(log_softmax(draw.logits, token)?),
        };
        Some(Drawn { token, logprob: (log_weight - mass.ln()) as f32, raw_logprob })
    }

    /// Divides positive, multiplies negative logits of tokens already seen, each once (Keskar et al., 2019).
    fn penalise(&mut self, history: &[u32], penalty: f32) {
        if penalty == 1.0 {
            return;
        }
        self.seen.resize(self.logits.len(), false);
        for &id in history {
            let logit = &mut self.logits[id as usize];
            if !std::mem::replace(&mut self.seen[id as usize], true) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for &id in history {
            self.seen[id as usize] = false;
        }
    }

    /// Fills `weights` and returns their sum.
    fn weigh(&mut self, max: f32, temperature: f32) -> f64 {
        self.weights.clear();
        self.weights.extend(self.logits.iter().map(|&logit| exp((logit - max) / temperature)));
        self.weights.chunks(BLOCK).map(block_sum).sum()
    }

    /// Cuts off what `sampling` says and draws: the token, and the sum of the weights it was drawn from.
    fn choose(&mut self, sampling: &SamplingParams, total: f64, uniform: f64) -> (u32, f64) {
        let all = self.weights.len();
        let top_k = if sampling.top_k == 0 { all } else { sampling.top_k.min(all) };
        if top_k == all && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
            return (self.invert(uniform * total), total);
        }
        self.kept.clear();
        self.kept.extend(0..all as u32);
        if top_k < all {
            self.sort_first(top_k);
            self.kept.truncate(top_k);
        }
        if sampling.top_p < 1.0 {
            self.keep_nucleus(sampling.top_p);
        }
        if sampling.min_p > 0.0 {
            // The most likely token weighs exp(0) = 1.
            let weights = &self.weights;
            self.kept.retain(|&id| weights[id as usize] >= sampling.min_p);
        }
        let mass: f64 = self.kept.iter().map(|&id| f64::from(self.weights[id as usize])).sum();
        (walk(self.kept.iter().copied(), &self.weights, uniform * mass), mass)
    }

    /// Returns the first id at which the sum of weights passes `target`.
    fn invert(&self, mut target: f64) -> u32 {
        let mut last = 0;
        for (block, weights) in self.weights.chunks(BLOCK).enumerate() {
            let sum = block_sum(weights);
            if sum > 0.0 {
                last = block;
                if target < sum {
                    break;
                }
            }
            target -= sum;
        }
        let start = last * BLOCK;
        let end = (start + BLOCK).min(self.weights.len());
        walk(start as u32..end as u32, &self.weights, target)
    }

    /// Keeps the most likely tokens until their share of what was left reaches `top_p`.
    fn keep_nucleus(&mut self, top_p: f32) {
        let weight = |weights: &[f32], id: u32| f64::from(weights[id as usize]);
        let total: f64 = self.kept.iter().map(|&id| weight(&self.weights, id)).sum();
        // Sorting the whole vocabulary is slow and the nucleus mostly small: sort a first part, then a longer one.
        let mut sorted = 64.min(self.kept.len());
        loop {
            self.sort_first(sorted);
            let mut mass = 0.0;
            for place in 0..sorted {
                mass += weight(&self.weights, self.kept[place]);
                if mass >= f64::from(top_p) * total {
                    self.kept.truncate(place + 1);
                    return;
                }
            }
            if sorted == self.kept.len() {
                return;
            }
            sorted = (sorted * 8).min(self.kept.len());
        }
    }

    /// Brings the `count` most likely of `kept` to its front, in their order: by logit, the lower id first among equals.
    fn sort_first(&mut self, count: usize) {
        let logits = &self.logits;
        let order = |a: &u32, b: &u32| {
            logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b))
        };
        if count < self.kept.len() {
            self.kept.select_nth_unstable_by(count, order);
        }
        self.kept[..count].sort_unstable_by(order);
    }
}

/// Returns the first of `ids` at which the sum of their weights passes `target`; the last with any weight if none does.
fn walk(ids: impl Iterator<Item = u32>, weights: &[f32], mut target: f64) -> u32 {
    let mut last = 0;
    for id in ids {
        let weight = f64::from(weights[id as usize]);
        if weight > 0.0 {
            last = id;
            if target < weight {
                break;
            }
        }
        target -= weight;
    }
    last
}

/// Returns the most likely id, the lowest among equals, and its logit; `None` when a logit is not a number, infinite, or
/// every one is minus infinity.
fn most_likely(logits: &[f32]) -> Option<(u32, f32)> {
    // In eight lanes, so that it vectorises. Minus infinity is a forbidden token, and fine.
    let (chunks, rest) = logits.as_chunks::<8>();
    let mut lanes = [f32::NEG_INFINITY; 8];
    let mut bad = [false; 8];
    let mut look = |lane: usize, logit: f32| {
        lanes[lane] = if logit > lanes[lane] { logit } else { lanes[lane] };
        bad[lane] |= logit.is_nan() | (logit == f32::INFINITY);
    };
    for chunk in chunks {
        (0..8).for_each(|lane| look(lane, chunk[lane]));
    }
    rest.iter().for_each(|&logit| look(0, logit));
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if bad.contains(&true) || max == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|&logit| logit == max).map(|id| (id as u32, max))
}

/// Returns `ln softmax(logits)[id]`; `None` when a logit is not a number.
pub(super) fn log_softmax(logits: &[f32], id: u32) -> Option<f32> {
    let (_, max) = most_likely(logits)?;
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

/// Sums in eight lanes, then the lanes in order: a fixed order that vector units can follow.
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
fn exp(x: f32) -> f32 {
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
