//! What an update or a rollout looked like in numbers. Pure functions on slices of one entry per token.

use super::advantage::moments;

/// Mean, smallest and largest of some numbers, all 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The (unbiased) standard deviation.
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarises numbers.
    pub fn of(numbers: &[f32]) -> Self {
        if numbers.is_empty() {
            return Self::default();
        }
        let (mean, variance) = moments(numbers);
        let min = numbers.iter().copied().fold(f32::INFINITY, f32::min);
        let max = numbers.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Self { mean, std: variance.sqrt(), min: min.into(), max: max.into() }
    }
}

/// Returns what to divide by so that numbers of this standard deviation vary by 1. Numbers that do not vary are left as
/// they are, for the quotient of nothing but rounding errors would be noise.
pub fn divisor(std: f64) -> f64 {
    if std > 1e-8 { std } else { 1.0 }
}

/// Returns the mean, 0 where there is nothing.
pub fn mean(numbers: &[f32]) -> f64 {
    moments(numbers).0
}

/// Returns how much of the returns' variance the values explain: `1 - var(returns - values) / var(returns)`.
///
/// 1 is a perfect critic, 0 one that knows the mean only, below 0 a harmful one; 0 also where the returns do not vary.
pub fn explained_variance(values: &[f32], returns: &[f32]) -> f64 {
    assert_eq!(values.len(), returns.len(), "one value per return");
    let errors: Vec<f32> = returns.iter().zip(values).map(|(ret, value)| ret - value).collect();
    let (total, left) = (moments(returns).1, moments(&errors).1);
    if total > 0.0 { 1.0 - left / total } else { 0.0 }
}

/// Running mean and variance of a stream of numbers (Welford, 1962).
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunningMoments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl RunningMoments {
    /// Takes a number in.
    pub fn push(&mut self, x: f64) {
        self.count += 1;
        let from_old = x - self.mean;
        self.mean += from_old / self.count as f64;
        self.squares += from_old * (x - self.mean);
    }

    /// Returns how many numbers there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Returns the mean; 0 before the first number.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Returns the unbiased variance; 0 before the second number.
    pub fn variance(&self) -> f64 {
        if self.count < 2 { 0.0 } else { self.squares / (self.count - 1) as f64 }
    }
}

/// Returns how many equally weighted tokens weighted ones are worth, as a share of their number (Kong, 1992):
/// `(sum w)^2 / (n sum w^2)`. 1 where they are equal or there are none, 0 where all of them are 0.
pub fn effective_sample_size(weights: &[f32]) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for &weight in weights {
        sum += f64::from(weight);
        squares += f64::from(weight).powi(2);
    }
    match weights.len() {
        0 => 1.0,
        _ if squares == 0.0 => 0.0,
        n => sum * sum / (n as f64 * squares),
    }
}

/// How far the trainer's log-probs lie from those the engine sampled with. A log-prob that is no number makes them NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    /// Share of the iteration's loss tokens that were compared.
    pub share: f64,
    /// Mean of `|old - rollout|` (nats).
    pub mean: f64,
    /// Largest of them.
    pub max: f64,
    /// Mean k3 estimate of KL(rollout || old).
    pub kl: f64,
    /// Mean of `exp(|old - rollout|)`: NeMo's token_mult_prob_error, 1 is perfect.
    pub mult_prob_error: f64,
    /// Effective sample size of the weights `exp(old - rollout)`, as a share of the tokens.
    pub ess: f64,
    /// Pearson correlation of the probabilities; 1 where either does not vary.
    pub correlation: f64,
}

/// Larger differences are as bad as this one; their exponentials would leave the range of numbers.
const MAX_EXPONENT: f64 = 20.0;

impl Mismatch {
    /// Compares the two on the tokens that are `among` those asked about, or returns `None` where there are none.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn between(
        old_logprobs: &[f32],
        rollout_logprobs: &[f32],
        among: impl Fn(usize) -> bool,
    ) -> Option<Self> {
        assert_eq!(old_logprobs.len(), rollout_logprobs.len(), "one log-prob per token of both");
        let tokens = (0..old_logprobs.len()).filter(|&t| among(t));
        let (old, rollout): (Vec<f32>, Vec<f32>) =
            tokens.map(|t| (old_logprobs[t], rollout_logprobs[t])).unzip();
        if old.is_empty() {
            return None;
        }
        let n = old.len() as f64;
        let (mut mean, mut max, mut kl, mut mult_prob_error) = (0.0, 0.0, 0.0, 0.0);
        let mut weights = Vec::with_capacity(old.len());
        for (&old, &rollout) in old.iter().zip(&rollout) {
            let d = f64::from(old) - f64::from(rollout);
            mean += d.abs() / n;
            // f64::max would pass over NaN.
            max = if d.abs() > max || d.is_nan() { d.abs() } else { max };
            let d = d.clamp(-MAX_EXPONENT, MAX_EXPONENT);
            kl += (d.exp_m1() - d) / n;
            mult_prob_error += d.abs().exp() / n;
            weights.push(d.exp() as f32);
        }
        Some(Self {
            share: n / old_logprobs.len() as f64,
            mean,
            max,
            kl,
            mult_prob_error,
            ess: effective_sample_size(&weights),
            correlation: correlation(&old, &rollout),
        })
    }

    /// Returns the metrics that say so under a prefix.
    pub fn metrics(&self, prefix: &str) -> Vec<(String, f64)> {
        let named = [
            ("dlogp_mean", self.mean),
            ("dlogp_max", self.max),
            ("kl", self.kl),
            ("mult_prob_error", self.mult_prob_error),
            ("ess", self.ess),
            ("correlation", self.correlation),
            ("share", self.share),
        ];
        named.into_iter().map(|(name, value)| (format!("{prefix}/{name}"), value)).collect()
    }
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let probabilities = |x: &[f32]| x.iter().map(|lp| lp.exp()).collect::<Vec<f32>>();
    let (a, b) = (probabilities(a), probabilities(b));
    let ((mean_a, var_a), (mean_b, var_b)) = (moments(&a), moments(&b));
    if var_a == 0.0 || var_b == 0.0 {
        return 1.0;
    }
    let products =
        a.iter().zip(&b).map(|(&a, &b)| (f64::from(a) - mean_a) * (f64::from(b) - mean_b));
    products.sum::<f64>() / (a.len() as f64 - 1.0) / (var_a * var_b).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-6, "{got} instead of {expected}");
    }

    #[test]
    fn a_summary_agrees_with_the_table() {
        let summary = Summary::of(&[1.0, 2.0, 6.0]);
        close(summary.mean, 3.0);
        close(summary.std, 7f64.sqrt()); // (4 + 1 + 9) / 2
        assert_eq!((summary.min, summary.max), (1.0, 6.0));
        assert_eq!(Summary::of(&[]), Summary::default());
    }

    #[test]
    fn explained_variance_is_1_for_a_perfect_critic_and_0_for_a_constant_one() {
        let returns = [1.0, 2.0, 4.0];
        close(explained_variance(&returns, &returns), 1.0);
        close(explained_variance(&[0.5; 3], &returns), 0.0);
        close(explained_variance(&[-1.0, -2.0, -4.0], &returns), -3.0); // errors 2, 4, 8: four times the variance
        close(explained_variance(&[1.0, 2.0], &[3.0, 3.0]), 0.0);
    }

    #[test]
    fn running_moments_are_those_of_the_whole() {
        let mut running = RunningMoments::default();
        for x in [1.0, 2.0, 6.0] {
            running.push(x);
        }
        assert_eq!(running.count(), 3);
        close(running.mean(), 3.0);
        close(running.variance(), 7.0);
    }

    #[test]
    fn effective_sample_sizes_agree_with_the_table() {
        close(effective_sample_size(&[0.5; 7]), 1.0);
        close(effective_sample_size(&[1.0, 0.0, 0.0, 0.0]), 0.25);
        close(effective_sample_size(&[1.0, 2.0, 3.0]), 36.0 / 42.0);
        assert_eq!(effective_sample_size(&[0.0; 3]), 0.0);
        assert_eq!(effective_sample_size(&[]), 1.0);
    }

    #[test]
    fn equal_log_probs_have_no_mismatch() {
        let logprobs = [-0.1, -2.0, -0.7];
        let got = Mismatch::between(&logprobs, &logprobs, |_| true).unwrap();
        close(got.correlation, 1.0);
        assert_eq!((got.mean, got.max, got.kl), (0.0, 0.0, 0.0));
        assert_eq!((got.mult_prob_error, got.ess, got.share), (1.0, 1.0, 1.0));
        assert_eq!(Mismatch::between(&logprobs, &logprobs, |_| false), None);
    }

    #[test]
    fn mismatch_agrees_with_the_table() {
        // d = 0.5, -0.1: |d| mean 0.3; exp(|d|) mean (1.6487213 + 1.1051709) / 2; k3 (0.1487213 + 0.0048374) / 2;
        // weights 1.6487213 and 0.9048374: their sum's square 6.5206615, their squares' sum 3.5370126.
        let among = |t| t != 1;
        let got = Mismatch::between(&[-1.0, -9.0, -2.1], &[-1.5, -1.0, -2.0], among).unwrap();
        close(got.share, 2.0 / 3.0);
        close(got.mean, 0.3);
        close(got.max, 0.5);
        close(got.mult_prob_error, 1.376_946_1);
        close(got.kl, 0.076_779_3);
        close(got.ess, 0.921_775_4);
        close(got.correlation, 1.0);
    }

    #[test]
    fn a_log_prob_that_is_no_number_shows() {
        for at in 0..2 {
            let mut old = [-1.0, -2.0];
            old[at] = f32::NAN;
            let got = Mismatch::between(&old, &[-1.0, -2.0], |_| true).unwrap();
            assert!([got.mean, got.max, got.kl, got.ess].iter().all(|x| x.is_nan()), "{got:?}");
        }
    }
}
