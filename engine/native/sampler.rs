//! Draws tokens. The same logits, history and key always give the same token: on any platform, in any batch.
//!
//! The order is that of transformers' `generate`: repetition penalty, forbidden ids, temperature, top-k, top-p, min-p.
//! (vLLM applies min-p before top-k and top-p, which differs where both are used.)

mod softmax;
#[cfg(test)]
mod tests;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{engine::SamplingParams, rollout::PromptId, simd::Kernels};

use softmax::{BLOCK, LogSoftmax, MostLikely, Weigh};

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
    kernels: Kernels,
    /// Logits after penalty and prohibition, where there is either.
    logits: Vec<f32>,
    /// `exp((logit - max) / temperature)` of each id.
    weights: Vec<f32>,
    /// Their sums, [`BLOCK`] by [`BLOCK`].
    sums: Vec<f64>,
    /// Ids that are left, where some were cut off.
    kept: Vec<u32>,
    /// Marks ids already penalised.
    seen: Vec<bool>,
}

impl Sampler {
    /// Draws one token; `None` when a logit is not a number or no token is left to draw.
    pub(super) fn draw(&mut self, draw: &Draw<'_>) -> Option<Drawn> {
        let mut changed = std::mem::take(&mut self.logits);
        let logits = self.allowed(draw, &mut changed);
        let drawn = self.draw_from(logits, draw);
        self.logits = changed;
        drawn
    }

    /// Returns the logits after penalty and prohibition, by way of `changed` where there is either.
    fn allowed<'a>(&mut self, draw: &Draw<'a>, changed: &'a mut Vec<f32>) -> &'a [f32] {
        let penalty = draw.sampling.repetition_penalty;
        if penalty == 1.0 && draw.forbidden.is_empty() {
            return draw.logits;
        }
        changed.clear();
        changed.extend_from_slice(draw.logits);
        self.penalise(changed, draw.history, penalty);
        for &id in draw.forbidden {
            changed[id as usize] = f32::NEG_INFINITY;
        }
        changed
    }

    fn draw_from(&mut self, logits: &[f32], draw: &Draw<'_>) -> Option<Drawn> {
        let (sampling, kernels) = (draw.sampling, self.kernels);
        let (best, max) = kernels.run(MostLikely { logits })?;
        let raw = |id| kernels.run(LogSoftmax { logits: draw.logits, id });
        if sampling.temperature == 0.0 {
            let raw_logprob = sampling.raw_logprobs.then(|| raw(best)).flatten();
            return Some(Drawn { token: best, logprob: 0.0, raw_logprob });
        }
        let weigh = Weigh {
            logits,
            max,
            temperature: sampling.temperature,
            weights: &mut self.weights,
            sums: &mut self.sums,
        };
        kernels.run(weigh);
        let total = self.sums.iter().sum();
        let (token, mass) = self.choose(logits, sampling, total, draw.key.uniform());
        let log_weight = f64::from((logits[token as usize] - max) / sampling.temperature);
        let unmodified = sampling.temperature == 1.0 && std::ptr::eq(logits, draw.logits);
        let raw_logprob = match (sampling.raw_logprobs, unmodified) {
            (false, _) => None,
            (true, true) => Some((log_weight - total.ln()) as f32),
            (true, false) => Some(raw(token)?),
        };
        Some(Drawn { token, logprob: (log_weight - mass.ln()) as f32, raw_logprob })
    }

    /// Divides positive, multiplies negative logits of tokens already seen, each once (Keskar et al., 2019).
    fn penalise(&mut self, logits: &mut [f32], history: &[u32], penalty: f32) {
        if penalty == 1.0 {
            return;
        }
        self.seen.resize(logits.len(), false);
        for &id in history {
            let logit = &mut logits[id as usize];
            if !std::mem::replace(&mut self.seen[id as usize], true) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        for &id in history {
            self.seen[id as usize] = false;
        }
    }

    /// Cuts off what `sampling` says and draws: the token, and the sum of the weights it was drawn from.
    fn choose(
        &mut self,
        logits: &[f32],
        sampling: &SamplingParams,
        total: f64,
        uniform: f64,
    ) -> (u32, f64) {
        let all = self.weights.len();
        let top_k = if sampling.top_k == 0 { all } else { sampling.top_k.min(all) };
        if top_k == all && sampling.top_p >= 1.0 && sampling.min_p <= 0.0 {
            return (self.invert(uniform * total), total);
        }
        self.kept.clear();
        self.kept.extend(0..all as u32);
        if top_k < all {
            self.sort_first(logits, top_k);
            self.kept.truncate(top_k);
        }
        if sampling.top_p < 1.0 {
            self.keep_nucleus(logits, sampling.top_p);
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
        for (block, &sum) in self.sums.iter().enumerate() {
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
    fn keep_nucleus(&mut self, logits: &[f32], top_p: f32) {
        let weight = |weights: &[f32], id: u32| f64::from(weights[id as usize]);
        let total: f64 = self.kept.iter().map(|&id| weight(&self.weights, id)).sum();
        // Sorting the whole vocabulary is slow and the nucleus mostly small: sort a first part, then a longer one.
        let mut sorted = 64.min(self.kept.len());
        loop {
            self.sort_first(logits, sorted);
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
    fn sort_first(&mut self, logits: &[f32], count: usize) {
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

/// Returns `ln softmax(logits)[id]`; `None` when a logit is not a number.
pub(super) fn log_softmax(logits: &[f32], id: u32) -> Option<f32> {
    Kernels::default().run(LogSoftmax { logits, id })
}
