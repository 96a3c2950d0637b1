//! Losses, one term at a time: a token's, a pair's, a row of logits'. Each comes with its derivative.
//!
//! These are slow and obvious, in f64. The trainer's losses depend on the weights only through log-probs, entropies,
//! values and scores, one number per token or sequence. So an algorithm takes those numbers, computes its loss and the
//! loss's derivative with respect to each of them *here*, and hands the derivatives back to be carried into the weights. What
//! a token weighs in the whole (1.0 / tokens of the optimizer step, usually) multiplies the term outside.

/// A term of a loss, with its derivative with respect to what the model computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Term {
    /// The term.
    pub loss: f64,
    /// Its derivative.
    pub gradient: f64,
    /// A clip holds the term: the model's number no longer matters to it, or matters less than it would.
    pub clipped: bool,
}

impl Term {
    /// Returns the term times a number that is no function of what the model computed.
    #[must_use]
    pub fn times(self, constant: f64) -> Self {
        Self { loss: self.loss * constant, gradient: self.gradient * constant, ..self }
    }
}

/// How far the policy may move from the old one before a token loses its gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RatioClip {
    /// Below 1 (epsilon).
    pub low: f64,
    /// Above 1.
    pub high: f64,
    /// For negative advantages the term is at most this times `-advantage`; 0 is off.
    pub dual: f64,
    /// The log of the ratio is kept within plus and minus this.
    pub max_log_ratio: f64,
}

impl Default for RatioClip {
    /// Returns 0.2 on both sides, no dual clip, exponents within 20.
    fn default() -> Self {
        Self { low: 0.2, high: 0.2, dual: 0.0, max_log_ratio: 20.0 }
    }
}

/// Returns the negative log-likelihood of a token, and its derivative with respect to the log-prob.
pub fn negative_log_likelihood(logprob: f64) -> Term {
    Term { loss: -logprob, gradient: -1.0, clipped: false }
}

/// Returns PPO's clipped surrogate of a token (Schulman et al., 2017, equation 7, as a loss), and its derivative with
/// respect to `logprob`.
///
/// ```text
/// r    = exp(clip(logprob - old_logprob, -max_log_ratio, max_log_ratio))
/// loss = max(-A r, -A clip(r, 1 - low, 1 + high))
/// loss = min(loss, -dual A)        where A < 0 and dual > 0    (Ye et al., 2020, equation 5)
/// ```
pub fn clipped_surrogate(logprob: f64, old_logprob: f64, advantage: f64, clip: &RatioClip) -> Term {
    let log_ratio = logprob - old_logprob;
    let ratio = ratio(logprob, old_logprob, clip.max_log_ratio);
    let slope = if log_ratio.abs() > clip.max_log_ratio { 0.0 } else { ratio };
    let unclipped = -advantage * ratio;
    let bounded = -advantage * ratio.clamp(1.0 - clip.low, 1.0 + clip.high);
    let term = if bounded > unclipped {
        Term { loss: bounded, gradient: 0.0, clipped: true }
    } else {
        Term { loss: unclipped, gradient: -advantage * slope, clipped: false }
    };
    let most = -clip.dual * advantage;
    if clip.dual > 0.0 && advantage < 0.0 && term.loss > most {
        return Term { loss: most, gradient: 0.0, clipped: true };
    }
    term
}

/// Returns CISPO's loss of a token (MiniMax, 2025, equations 4 and 5), and its derivative with respect to `logprob`. The
/// weight is a constant: a token beyond the bound counts less, and keeps its gradient. There is no bound from below.
///
/// ```text
/// w    = min(r, 1 + high)
/// loss = -w A logprob
/// ```
pub fn cispo(logprob: f64, old_logprob: f64, advantage: f64, clip: &RatioClip) -> Term {
    let ratio = ratio(logprob, old_logprob, clip.max_log_ratio);
    let weight = ratio.min(1.0 + clip.high);
    Term { clipped: weight < ratio, ..negative_log_likelihood(logprob).times(weight * advantage) }
}

/// Returns the mean of `logprob - old_logprob` over the tokens of each of some sequences, told to each token: the log of
/// the ratio of GSPO (Zheng et al., 2025, equation 7).
///
/// In the place of a token's own log-ratio in [`clipped_surrogate`], it gives GSPO's loss, and the derivative of what a
/// sequence's `n` tokens of weight `w` add up to, `w n f(mean)`, with respect to the log-prob of one of them: `w f'(mean)`.
///
/// # Panics
/// If the lengths do not add up to the tokens.
pub fn sequence_log_ratios(
    log_ratios: &[f64],
    lengths: impl IntoIterator<Item = usize>,
) -> Vec<f64> {
    let mut rest = log_ratios;
    let mut means = Vec::with_capacity(log_ratios.len());
    for length in lengths {
        let (sequence, later) = rest.split_at(length);
        let mean = sequence.iter().sum::<f64>() / length.max(1) as f64;
        means.resize(means.len() + length, mean);
        rest = later;
    }
    assert!(rest.is_empty(), "every token is of a sequence");
    means
}

/// Returns `exp(logprob - old_logprob)` with its exponent kept within plus and minus `max_log_ratio`.
pub fn ratio(logprob: f64, old_logprob: f64, max_log_ratio: f64) -> f64 {
    (logprob - old_logprob).clamp(-max_log_ratio, max_log_ratio).exp()
}

/// Returns the critic's clipped squared error of a token (the PPO code of Schulman et al.; Huang et al., 2022, detail
/// 9), and its derivative with respect to `value`. A `clip_range` of 0 leaves the plain squared error.
///
/// ```text
/// loss = 1/2 max((value - return)^2, (clip(value, old - clip_range, old + clip_range) - return)^2)
/// ```
pub fn clipped_value(value: f64, old_value: f64, target: f64, clip_range: f64) -> Term {
    let error = value - target;
    let plain = Term { loss: 0.5 * error * error, gradient: error, clipped: false };
    if clip_range <= 0.0 {
        return plain;
    }
    let near = value.clamp(old_value - clip_range, old_value + clip_range);
    let bounded = 0.5 * (near - target).powi(2);
    if bounded > plain.loss { Term { loss: bounded, gradient: 0.0, clipped: true } } else { plain }
}

/// A pair's loss, with its derivatives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairTerm {
    /// The term.
    pub loss: f64,
    /// Its derivative with respect to the chosen completion's number: its score, or its log-prob.
    pub chosen: f64,
    /// And to the rejected one's.
    pub rejected: f64,
}

/// Returns the Bradley-Terry loss of a pair of scores (Ouyang et al., 2022, equation 1), with a margin (Touvron et al.,
/// 2023, equation 2) and a pull to the centre (Eisenstein et al., 2023).
///
/// ```text
/// loss = -ln sigmoid(chosen - rejected - margin) + center_coef (chosen + rejected)^2
/// ```
pub fn bradley_terry(chosen: f64, rejected: f64, margin: f64, center_coef: f64) -> PairTerm {
    let gap = chosen - rejected - margin;
    let sum = chosen + rejected;
    let (pull, push) = (2.0 * center_coef * sum, sigmoid(-gap));
    PairTerm {
        loss: softplus(-gap) + center_coef * sum * sum,
        chosen: pull - push,
        rejected: pull + push,
    }
}

/// Returns `ln(1 + exp(x))` without overflow.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Returns `1 / (1 + exp(-x))` without overflow.
pub(super) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// Returns the log-probabilities of a row of logits at a temperature: `z / T - ln sum exp(z / T)`.
///
/// Their derivative with respect to logit `j` is `([i = j] - p_j) / T`.
pub fn log_softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = logits.iter().map(|z| z / temperature).collect();
    let most = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = most + scaled.iter().map(|z| (z - most).exp()).sum::<f64>().ln();
    scaled.iter().map(|z| z - total).collect()
}

/// Returns the entropy (nats) of a row of logits at a temperature, and its derivatives with respect to the logits.
///
/// ```text
/// H = -sum p ln p        dH/dz_j = -p_j (ln p_j + H) / T
/// ```
pub fn entropy(logits: &[f64], temperature: f64) -> (f64, Vec<f64>) {
    let logprobs = log_softmax(logits, temperature);
    let entropy = -logprobs.iter().map(|lp| lp.exp() * lp).sum::<f64>();
    let slope = |lp: &f64| -lp.exp() * (lp + entropy) / temperature;
    (entropy, logprobs.iter().map(slope).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6, "{got} instead of {expected}");
    }

    /// Compares a term's derivative with a central difference.
    fn check_gradient(at: f64, term: impl Fn(f64) -> Term) {
        let h = 1e-6;
        let slope = (term(at + h).loss - term(at - h).loss) / (2.0 * h);
        let got = term(at).gradient;
        assert!((got - slope).abs() < 1e-6 * slope.abs().max(1.0), "{got}, not {slope}, at {at}");
    }

    #[test]
    fn the_surrogate_agrees_with_the_table() {
        // ln 1.1 is inside the clip, ln 1.5 and ln 0.5 outside. (ratio, A) -> (loss, derivative, clipped)
        let table = [
            (1.1, 2.0, -2.2, -2.2, false),
            (1.5, 2.0, -2.4, 0.0, true),   // -A clip(r) = -2 * 1.2 > -3
            (0.5, 2.0, -1.0, -1.0, false), // too improbable, and good: let it come back
            (1.5, -2.0, 3.0, 3.0, false),  // too probable, and bad: let it come back
            (0.5, -2.0, 1.6, 0.0, true),   // -A clip(r) = 2 * 0.8 > 1
        ];
        for (ratio, advantage, loss, gradient, clipped) in table {
            let term =
                clipped_surrogate(f64::ln(ratio) - 3.0, -3.0, advantage, &RatioClip::default());
            close(term.loss, loss);
            close(term.gradient, gradient);
            assert_eq!(term.clipped, clipped, "ratio {ratio}, advantage {advantage}");
        }
    }

    #[test]
    fn the_dual_clip_bounds_only_bad_tokens() {
        let clip = RatioClip { dual: 3.0, ..RatioClip::default() };
        let term = clipped_surrogate(5f64.ln(), 0.0, -2.0, &clip);
        assert_eq!((term.loss, term.gradient, term.clipped), (6.0, 0.0, true));
        close(clipped_surrogate(2f64.ln(), 0.0, -2.0, &clip).loss, 4.0);
        close(clipped_surrogate(0.1f64.ln(), 0.0, 2.0, &clip).loss, -0.2);
    }

    #[test]
    fn equal_policies_have_the_policy_gradient() {
        let term = clipped_surrogate(-2.25, -2.25, 0.75, &RatioClip::default());
        assert_eq!(term, Term { loss: -0.75, gradient: -0.75, clipped: false });
    }

    #[test]
    fn the_ratio_stays_finite_far_from_the_old_policy() {
        let term = clipped_surrogate(0.0, -1000.0, -1.0, &RatioClip::default());
        assert_eq!((term.loss, term.gradient), (20f64.exp(), 0.0));
        assert_eq!(clipped_surrogate(-1000.0, 0.0, 1.0, &RatioClip::default()).gradient, 0.0);
    }

    #[test]
    fn the_surrogate_gradient_agrees_with_finite_differences() {
        let wide = RatioClip { low: 0.1, high: 0.3, dual: 2.5, max_log_ratio: 20.0 };
        for clip in [RatioClip::default(), wide] {
            for advantage in [-1.5, 0.7] {
                for log_ratio in [-2.0, -0.15, 0.01, 0.15, 0.5, 1.5] {
                    check_gradient(log_ratio, |lp| clipped_surrogate(lp, 0.0, advantage, &clip));
                }
            }
        }
    }

    #[test]
    fn cispo_agrees_with_the_table() {
        let clip = RatioClip { high: 0.5, ..RatioClip::default() };
        // (ratio, A) -> (loss, derivative, clipped) at a log-prob of -2; the bound is 1.5.
        let table = [
            (1.0, 2.0, 4.0, -2.0, false),
            (1.25, 2.0, 5.0, -2.5, false),
            (3.0, 2.0, 6.0, -3.0, true),
            (3.0, -2.0, -6.0, 3.0, true),
            (0.25, -2.0, -1.0, 0.5, false), // no bound from below
        ];
        for (ratio, advantage, loss, gradient, clipped) in table {
            let term = cispo(-2.0, -2.0 - f64::ln(ratio), advantage, &clip);
            close(term.loss, loss);
            close(term.gradient, gradient);
            assert_eq!(term.clipped, clipped, "ratio {ratio}, advantage {advantage}");
        }
    }

    #[test]
    fn sequence_ratios_agree_with_the_table() {
        let means = sequence_log_ratios(&[0.1, 0.3, -0.5, 0.2, 0.0, 0.7], [2, 0, 1, 3]);
        let expected = [0.2, 0.2, -0.5, 0.3, 0.3, 0.3];
        means.iter().zip(expected).for_each(|(&mean, expected)| close(mean, expected));
        assert_eq!(means.len(), 6);
    }

    #[test]
    fn the_gradient_of_gspo_agrees_with_finite_differences() {
        let clip = RatioClip { low: 0.1, high: 0.3, ..RatioClip::default() };
        let weights = [0.3, 0.3, 0.1, 0.1, 0.1];
        let terms = |log_ratios: &[f64; 5], advantages: [f64; 2]| -> Vec<Term> {
            let means = sequence_log_ratios(log_ratios, [2, 3]);
            let term = |t: usize| {
                let advantage = advantages[usize::from(t >= 2)];
                clipped_surrogate(means[t], 0.0, advantage, &clip).times(weights[t])
            };
            (0..5).map(term).collect()
        };
        let loss = |at: &[f64; 5], advantages| -> f64 {
            terms(at, advantages).iter().map(|term| term.loss).sum()
        };
        // The second sequence's mean, 0.4, is above the clip; tokens of the first one are, and their mean is not.
        let at = [0.5, -0.3, 0.2, 0.9, 0.1];
        for advantages in [[1.5, 0.7], [-0.4, -2.0]] {
            for t in 0..5 {
                let (mut up, mut down) = (at, at);
                up[t] += 1e-6;
                down[t] -= 1e-6;
                let slope = (loss(&up, advantages) - loss(&down, advantages)) / 2e-6;
                close(terms(&at, advantages)[t].gradient, slope);
            }
            assert_eq!(terms(&at, advantages)[3].clipped, advantages[1] > 0.0);
        }
    }

    #[test]
    fn the_value_loss_agrees_with_the_table() {
        // (value, old, return) -> (loss, derivative, clipped), range 0.2
        let table = [
            (1.1, 1.0, 2.0, 0.405, -0.9, false), // inside: 0.5 * 0.9^2
            (1.5, 1.0, 2.0, 0.32, 0.0, true),    // 0.5 * (1.2 - 2)^2 > 0.5 * 0.5^2
            (0.5, 1.0, 2.0, 1.125, -1.5, false), // 0.5 * 1.5^2 > 0.5 * (0.8 - 2)^2
        ];
        for (value, old, target, loss, gradient, clipped) in table {
            let term = clipped_value(value, old, target, 0.2);
            close(term.loss, loss);
            close(term.gradient, gradient);
            assert_eq!(term.clipped, clipped, "value {value}");
        }
        close(clipped_value(1.5, 1.0, 2.0, 0.0).gradient, -0.5);
    }

    #[test]
    fn the_value_gradient_agrees_with_finite_differences() {
        for value in [-1.0, 0.35, 0.55, 0.9, 4.0] {
            for target in [-2.0, 0.45, 3.0] {
                check_gradient(value, |v| clipped_value(v, 0.5, target, 0.2));
                check_gradient(value, |v| clipped_value(v, 0.5, target, 0.0));
            }
        }
    }

    #[test]
    fn the_likelihood_gradient_agrees_with_finite_differences() {
        check_gradient(-1.25, negative_log_likelihood);
    }

    #[test]
    fn bradley_terry_agrees_with_the_table() {
        close(bradley_terry(0.3, 0.3, 0.0, 0.0).loss, std::f64::consts::LN_2);
        // -ln sigmoid(2 - 0.5 - 1) = ln(1 + exp(-0.5)) = 0.4740770
        close(bradley_terry(2.0, 0.5, 1.0, 0.0).loss, 0.474_077_0);
        // and 0.01 * 2.5^2 = 0.0625
        close(bradley_terry(2.0, 0.5, 1.0, 0.01).loss, 0.536_577_0);
        close(bradley_terry(-1000.0, 1000.0, 0.0, 0.0).loss, 2000.0);
        close(bradley_terry(1000.0, -1000.0, 0.0, 0.0).loss, 0.0);
    }

    #[test]
    fn bradley_terry_gradients_agree_with_finite_differences() {
        let h = 1e-6;
        for (chosen, rejected, margin, center) in
            [(0.4, -0.2, 0.0, 0.0), (-1.0, 2.0, 0.5, 0.1), (30.0, -30.0, 0.0, 0.01)]
        {
            let loss = |c: f64, r: f64| bradley_terry(c, r, margin, center).loss;
            let term = bradley_terry(chosen, rejected, margin, center);
            let up = (loss(chosen + h, rejected) - loss(chosen - h, rejected)) / (2.0 * h);
            let down = (loss(chosen, rejected + h) - loss(chosen, rejected - h)) / (2.0 * h);
            close(term.chosen, up);
            close(term.rejected, down);
        }
    }

    #[test]
    fn log_probs_agree_with_the_table_and_survive_large_logits() {
        // exp: 1, e^0.5, e^1; sum 1 + 1.6487213 + 2.7182818 = 5.3670031, ln 1.6802697.
        let logprobs = log_softmax(&[0.0, 1.0, 2.0], 2.0);
        close(logprobs[0], -1.680_269_7);
        close(logprobs[2], -0.680_269_7);
        assert_eq!(log_softmax(&[1000.0, 0.0], 1.0), [0.0, -1000.0]);
    }

    #[test]
    fn entropy_is_largest_for_equal_logits_and_its_gradient_agrees_with_finite_differences() {
        close(entropy(&[0.7; 4], 1.0).0, 4f64.ln());
        let logits = [0.3, -1.2, 2.0, 0.9];
        let (_, gradient) = entropy(&logits, 0.7);
        for j in 0..logits.len() {
            let at = |h: f64| {
                let mut moved = logits;
                moved[j] += h;
                entropy(&moved, 0.7).0
            };
            close(gradient[j], (at(1e-6) - at(-1e-6)) / 2e-6);
        }
    }
}
