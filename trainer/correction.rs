//! Importance weights: what a token counts that another policy sampled than the one that learns from it.
//!
//! The engine samples with `rollout`, the trainer starts its update from `old`. They differ by numerics (other kernels, another
//! number format) and, where generation overlaps training, by the optimizer steps in between. The gradient of the policy's
//! objective over tokens of `rollout` is then unbiased only if each is weighted by `old / rollout`; and since such
//! weights vary without limit, they are bounded.
//!
//! ```text
//! w_t = exp(old_t - rollout_t)                  its exponent kept within plus and minus max_log_ratio
//!
//! u_t = w_t                                     level = token
//!       prod_s w_s                                      sequence
//!       (prod_s w_s)^(1/T)                              geometric
//!
//! weight_t = clip(u_t, low, high)               rule = truncate
//!            u_t if low <= u_t <= high, else 0         mask; w_t in place of u_t at the geometric level
//! ```
//!
//! Token and truncate is TIS (Yao et al., 2025); token and mask MIS, or IcePop (Ling team, 2025); sequence and either
//! rule are TRL's `sequence_truncate` and `sequence_mask`; geometric and mask is seq-mask-TIS (OpenRLHF, NeMo-RL), which
//! drops completions and bounds no token's weight but by the exponent.
//!
//! The weights multiply the policy-gradient term alone: KL, entropy and the critic's loss are not estimates over `rollout`
//! that a weight would mend (TRL and OpenRLHF do the same). They are constants to the gradient. **A token that is masked counts
//! 0, and stays in every denominator**: what is left weighs what it weighed before, so the gradient of one completion
//! does not depend on which others were dropped, and an iteration of which little is left takes a small step, not a noisy
//! one of the usual size.
//!
//! With `old` recomputed by the trainer, weights in every iteration are the decoupled objective of PPO (AReaL: Fu
//! et al., arXiv 2505.24298; after Hilton et al., 2022): clipped around the proximal policy `old`, weighted by proximal over
//! behaviour policy.

use super::{
    config::{BoundRule, CorrectionOptions, RatioLevel},
    loss::ratio,
    stats::{Summary, effective_sample_size},
};

/// Weights of the tokens of one completion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceWeights {
    /// What each token counts.
    pub weights: Vec<f32>,
    /// Whether its ratio was outside the bounds.
    pub outside: Vec<bool>,
}

/// Returns what each token of a completion counts, by the equations above.
///
/// A log-prob that is no number makes the weights it has a part in NaN: nothing is masked because it could not be compared.
///
/// # Panics
/// If the slices differ in length.
pub fn importance_weights(
    old_logprobs: &[f32],
    rollout_logprobs: &[f32],
    options: &CorrectionOptions,
    max_log_ratio: f64,
) -> ImportanceWeights {
    assert_eq!(old_logprobs.len(), rollout_logprobs.len(), "one log-prob per token of both");
    let pairs = old_logprobs.iter().zip(rollout_logprobs);
    let log_ratios: Vec<f64> =
        pairs.map(|(&old, &roll)| f64::from(old) - f64::from(roll)).collect();
    let whole: f64 = log_ratios.iter().sum();
    let mut out = ImportanceWeights::default();
    for &own in &log_ratios {
        let bounded = match options.level {
            RatioLevel::Token => own,
            RatioLevel::Sequence => whole,
            RatioLevel::Geometric => whole / log_ratios.len() as f64,
        };
        let bounded = ratio(bounded, 0.0, max_log_ratio);
        let kept = match options.level {
            RatioLevel::Geometric => ratio(own, 0.0, max_log_ratio),
            RatioLevel::Token | RatioLevel::Sequence => bounded,
        };
        let outside = bounded < options.low || bounded > options.high;
        let weight = match options.rule {
            _ if !outside => kept,
            BoundRule::Truncate => bounded.clamp(options.low, options.high),
            BoundRule::Mask => 0.0,
        };
        out.weights.push(weight as f32);
        out.outside.push(outside);
    }
    out
}

/// What an iteration's weights looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CorrectionStats {
    /// The weights.
    pub weights: Summary,
    /// Their effective sample size, as a share of the tokens.
    pub ess: f64,
    /// Share of tokens whose ratio was outside the bounds.
    pub outside: f64,
    /// Share of completions all of whose tokens' ratios were.
    pub outside_sequences: f64,
}

impl CorrectionStats {
    /// Summarises the weights of an iteration's completions.
    pub fn of(completions: &[ImportanceWeights]) -> Self {
        let weights: Vec<f32> =
            completions.iter().flat_map(|completion| &completion.weights).copied().collect();
        let outside = completions.iter().flat_map(|completion| &completion.outside);
        let wholly = |completion: &&ImportanceWeights| completion.outside.iter().all(|&out| out);
        Self {
            weights: Summary::of(&weights),
            ess: effective_sample_size(&weights),
            outside: share(outside.filter(|&&out| out).count(), weights.len()),
            outside_sequences: share(completions.iter().filter(wholly).count(), completions.len()),
        }
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("correction/weight_mean", self.weights.mean),
            ("correction/weight_min", self.weights.min),
            ("correction/weight_max", self.weights.max),
            ("correction/ess", self.ess),
            ("correction/outside", self.outside),
            ("correction/outside_sequences", self.outside_sequences),
        ]
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

#[cfg(test)]
mod tests;
