//! Estimates of the KL divergence from the reference policy, and the coefficient of its penalty.
//!
//! Everything per token is in nats. `d = logprob - ref_logprob`, of a token sampled from the policy.

use serde::{Deserialize, Serialize};

/// The exponent of k3 is kept within plus and minus this, as verl and NeMo-RL do.
const MAX_EXPONENT: f64 = 20.0;
/// The value of k3 is kept below this, likewise.
const MAX_K3: f64 = 10.0;

/// How one sampled token's share of the KL divergence is estimated (Schulman, "Approximating KL divergence", 2020).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// `d`: unbiased, may be negative.
    #[default]
    K1,
    /// `|d|`: NeMo-Aligner's default; no estimate of the KL, though a penalty.
    Abs,
    /// `d^2 / 2`: never negative, biased; its gradient as a loss is that of the KL.
    K2,
    /// `exp(-d) - 1 + d`: never negative, unbiased, low variance. The exponent is kept within 20, the value below 10.
    K3,
}

impl KlEstimator {
    /// Returns a token's estimate.
    pub fn value(self, logprob: f64, ref_logprob: f64) -> f64 {
        let d = logprob - ref_logprob;
        match self {
            Self::K1 => d,
            Self::Abs => d.abs(),
            Self::K2 => d * d / 2.0,
            Self::K3 => {
                let minus_d = (-d).clamp(-MAX_EXPONENT, MAX_EXPONENT);
                // exp_m1 keeps the digits that `exp(x) - 1 - x` loses for small x.
                (minus_d.exp_m1() - minus_d).min(MAX_K3)
            }
        }
    }

    /// Returns the derivative of the estimate with respect to `logprob`; 0 where a guard holds the value.
    pub fn gradient(self, logprob: f64, ref_logprob: f64) -> f64 {
        let d = logprob - ref_logprob;
        match self {
            Self::K1 => 1.0,
            Self::Abs => {
                if d == 0.0 {
                    0.0
                } else {
                    d.signum()
                }
            }
            Self::K2 => d,
            Self::K3 => {
                let guarded = d.abs() > MAX_EXPONENT || self.value(logprob, ref_logprob) >= MAX_K3;
                if guarded { 0.0 } else { -(-d).exp_m1() }
            }
        }
    }

    /// Returns each token's estimate.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn values(self, logprobs: &[f32], ref_logprobs: &[f32]) -> Vec<f32> {
        assert_eq!(logprobs.len(), ref_logprobs.len(), "one reference log-prob per token");
        let pairs = logprobs.iter().zip(ref_logprobs);
        pairs.map(|(&lp, &reference)| self.value(lp.into(), reference.into()) as f32).collect()
    }
}

/// The weight of the KL penalty over the iterations of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlController {
    /// Stays as it is.
    Fixed {
        /// The weight.
        coef: f64,
    },
    /// Follows a target: `coef *= 1 + clip(kl / target - 1, -0.2, 0.2) * samples / horizon` (Ziegler et al., 2019, 2.2).
    Adaptive {
        /// The weight now.
        coef: f64,
        /// The KL of a completion to be kept (nats, summed over its tokens).
        target: f64,
        /// Samples that would change the coefficient by its own size if the error were not clipped to a fifth.
        horizon: f64,
    },
}

impl KlController {
    /// Returns the weight now.
    pub fn coef(&self) -> f64 {
        match *self {
            Self::Fixed { coef } | Self::Adaptive { coef, .. } => coef,
        }
    }

    /// Takes note of an iteration: the mean KL of its completions, and how many they were. A KL that is no number says
    /// nothing.
    pub fn observe(&mut self, mean_kl: f64, samples: usize) {
        if let (Self::Adaptive { coef, target, horizon }, true) = (self, mean_kl.is_finite()) {
            let error = (mean_kl / *target - 1.0).clamp(-0.2, 0.2);
            *coef *= 1.0 + error * samples as f64 / *horizon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [KlEstimator; 4] =
        [KlEstimator::K1, KlEstimator::Abs, KlEstimator::K2, KlEstimator::K3];

    #[test]
    fn estimates_agree_with_the_table() {
        // d = -1 - (-1.5) = 0.5: k3 = exp(-0.5) - 1 + 0.5 = 0.10653; d = -0.5: k3 = exp(0.5) - 1 - 0.5 = 0.14872.
        let table = [
            (KlEstimator::K1, 0.5, -0.5),
            (KlEstimator::Abs, 0.5, 0.5),
            (KlEstimator::K2, 0.125, 0.125),
            (KlEstimator::K3, 0.106_530_66, 0.148_721_27),
        ];
        for (estimator, above, below) in table {
            assert!((estimator.value(-1.0, -1.5) - above).abs() < 1e-8, "{estimator:?}");
            assert!((estimator.value(-1.5, -1.0) - below).abs() < 1e-8, "{estimator:?}");
        }
    }

    #[test]
    fn equal_policies_have_no_kl_and_no_gradient_but_k1s() {
        for estimator in ALL {
            assert_eq!(estimator.value(-2.5, -2.5), 0.0);
            let slope = if estimator == KlEstimator::K1 { 1.0 } else { 0.0 };
            assert_eq!(estimator.gradient(-2.5, -2.5), slope);
        }
    }

    #[test]
    fn k1_and_k3_have_the_kl_as_their_mean() {
        // Policy (0.7, 0.2, 0.1), reference (0.5, 0.25, 0.25): KL = sum p ln(p / q).
        let (p, q) = ([0.7f64, 0.2, 0.1], [0.5f64, 0.25, 0.25]);
        let kl: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
        for estimator in [KlEstimator::K1, KlEstimator::K3] {
            let mean: f64 = p.iter().zip(q).map(|(p, q)| p * estimator.value(p.ln(), q.ln())).sum();
            assert!((mean - kl).abs() < 1e-12, "{estimator:?}");
        }
    }

    #[test]
    fn the_mean_gradient_of_k2_as_a_loss_is_that_of_the_kl_and_k1s_is_none() {
        // Softmax policy with logits z. d KL / dz_j = p_j (ln(p_j / q_j) - KL); dlp_i/dz_j = [i = j] - p_j.
        let (p, q) = ([0.7f64, 0.2, 0.1], [0.5f64, 0.25, 0.25]);
        let kl: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
        for j in 0..3 {
            let mean = |estimator: KlEstimator| -> f64 {
                let slope = |i: usize| f64::from(i == j) - p[j];
                (0..3).map(|i| p[i] * estimator.gradient(p[i].ln(), q[i].ln()) * slope(i)).sum()
            };
            assert!((mean(KlEstimator::K2) - p[j] * ((p[j] / q[j]).ln() - kl)).abs() < 1e-12);
            assert!(mean(KlEstimator::K1).abs() < 1e-12);
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for estimator in ALL {
            for lp in [-0.3, -1.7, -2.9, -6.0] {
                let h = 1e-6;
                let slope =
                    (estimator.value(lp + h, -2.0) - estimator.value(lp - h, -2.0)) / (2.0 * h);
                let error = (estimator.gradient(lp, -2.0) - slope).abs();
                assert!(error < 1e-6 * slope.abs().max(1.0), "{estimator:?} at {lp}");
            }
        }
    }

    #[test]
    fn k3_stays_finite_far_from_the_reference() {
        assert_eq!(KlEstimator::K3.value(-1000.0, 0.0), MAX_K3);
        assert_eq!(KlEstimator::K3.gradient(-1000.0, 0.0), 0.0);
        assert_eq!(KlEstimator::K3.value(0.0, -1000.0), MAX_K3);
    }

    #[test]
    fn an_adaptive_coefficient_moves_towards_its_target_by_a_fifth_at_most() {
        let mut kl = KlController::Adaptive { coef: 0.1, target: 6.0, horizon: 1000.0 };
        kl.observe(60.0, 500);
        assert!((kl.coef() - 0.1 * 1.1).abs() < 1e-12); // clip(9, .2) * 500 / 1000 = 0.1
        kl.observe(0.0, 500);
        assert!((kl.coef() - 0.11 * 0.9).abs() < 1e-12);
        kl.observe(6.0, 500);
        assert!((kl.coef() - 0.11 * 0.9).abs() < 1e-12);
        let mut fixed = KlController::Fixed { coef: 0.1 };
        fixed.observe(60.0, 500);
        assert_eq!(fixed.coef(), 0.1);
    }
}
