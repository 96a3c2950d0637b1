//! What the best of n completions is worth, for every n up to the number that was sampled.

use serde::Serialize;

/// One n of a best-of-n curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CurvePoint {
    /// The best of so many.
    pub n: usize,
    /// Its expected reward, mean over prompts.
    pub best: f64,
    /// The share of prompts of which at least one of n completions is right (pass@n).
    pub pass: f64,
    /// The most that the KL of best-of-n sampling from the policy can be (nats).
    pub kl_bound: f64,
}

/// Returns the curve from the rewards of each prompt's completions, the same number of each prompt, at least one.
/// A reward of `threshold` or more is a right answer.
pub fn best_of_n(rewards: &[Vec<f64>], threshold: f64) -> Vec<CurvePoint> {
    let samples = rewards.iter().map(Vec::len).min().unwrap_or(0);
    let sorted: Vec<Vec<f64>> = rewards.iter().map(|rewards| sorted(rewards)).collect();
    let mean = |of: &dyn Fn(&[f64]) -> f64| {
        sorted.iter().map(|rewards| of(rewards)).sum::<f64>() / sorted.len() as f64
    };
    let point = |n: usize| CurvePoint {
        n,
        best: mean(&|rewards| expected_best(rewards, n)),
        pass: mean(&|rewards| {
            pass_at(n, rewards.len(), rewards.iter().filter(|&&reward| reward >= threshold).count())
        }),
        kl_bound: kl_bound(n),
    };
    (1..=samples).map(point).collect()
}

fn sorted(rewards: &[f64]) -> Vec<f64> {
    let mut sorted = rewards.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Returns the expected largest of n rewards that are drawn without replacement from N ascending ones, which is unbiased
/// for n fresh ones:
///
/// ```text
/// sum over i of  C(i - 1, n - 1) / C(N, n) R_i        i = 1 ... N
/// ```
fn expected_best(ascending: &[f64], n: usize) -> f64 {
    // The weight of the largest is n / N; C(i - 2, n - 1) / C(i - 1, n - 1) = (i - n) / (i - 1) leads to those below it.
    let mut weight = n as f64 / ascending.len() as f64;
    let mut best = 0.0;
    for i in (n..=ascending.len()).rev() {
        best += weight * ascending[i - 1];
        if i > 1 {
            weight *= (i - n) as f64 / (i - 1) as f64;
        }
    }
    best
}

/// Returns `1 - C(N - c, k) / C(N, k)`: the probability that k of N completions, c of them right, hold a right one (Chen et
/// al., 2021, equation 1; as a product, which cannot overflow).
fn pass_at(k: usize, samples: usize, right: usize) -> f64 {
    if samples - right < k {
        return 1.0;
    }
    let miss = |i: usize| 1.0 - k as f64 / i as f64;
    1.0 - (samples - right + 1..=samples).map(miss).product::<f64>()
}

/// Returns `ln n - (n - 1) / n` (Stiennon et al., 2020; an upper bound where rewards tie: Beirami et al., 2024).
fn kl_bound(n: usize) -> f64 {
    let n = n as f64;
    n.ln() - (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean over all subsets: the definition.
    fn over_subsets(rewards: &[f64], n: usize, of: &dyn Fn(&[f64]) -> f64) -> f64 {
        let subsets = (0u32..1 << rewards.len()).filter(|set| set.count_ones() as usize == n);
        let values: Vec<f64> = subsets
            .map(|set| {
                let chosen: Vec<f64> =
                    (0..rewards.len()).filter(|i| set >> i & 1 == 1).map(|i| rewards[i]).collect();
                of(&chosen)
            })
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn each_n_is_the_mean_over_all_choices_of_n() {
        let rewards = [0.3, 1.0, -2.0, 1.0, 0.5, 0.0];
        let curve = best_of_n(&[rewards.to_vec()], 0.5);
        assert_eq!(curve.len(), 6);
        for CurvePoint { n, best, pass, .. } in curve {
            let max = |chosen: &[f64]| chosen.iter().copied().fold(f64::MIN, f64::max);
            assert!((best - over_subsets(&rewards, n, &max)).abs() < 1e-12, "{n}");
            let passes = |chosen: &[f64]| f64::from(u8::from(max(chosen) >= 0.5));
            assert!((pass - over_subsets(&rewards, n, &passes)).abs() < 1e-12, "{n}");
        }
    }

    #[test]
    fn prompts_count_alike() {
        let curve = best_of_n(&[vec![0.0, 1.0], vec![0.0, 0.0]], 1.0);
        let shown: Vec<_> = curve.iter().map(|point| (point.n, point.best, point.pass)).collect();
        assert_eq!(shown, [(1, 0.25, 0.25), (2, 0.5, 0.5)]);
    }

    #[test]
    fn the_kl_bound_starts_at_0_and_grows_like_the_logarithm() {
        assert_eq!(kl_bound(1), 0.0);
        assert!((kl_bound(2) - (2f64.ln() - 0.5)).abs() < 1e-15);
        assert!((kl_bound(1000) - (1000f64.ln() - 0.999)).abs() < 1e-12);
    }

    #[test]
    fn many_completions_do_not_overflow() {
        let rewards: Vec<f64> = (0..2000).map(f64::from).collect();
        let curve = best_of_n(&[rewards], 1999.0);
        // Uniform on 0 ... N - 1: n (N + 1) / (n + 1) - 1.
        let wanted = 1000.0 * 2001.0 / 1001.0 - 1.0;
        assert!((curve[999].best - wanted).abs() < 1e-6, "{:?}", curve[999]);
        assert!((curve[999].pass - 0.5).abs() < 1e-9, "{:?}", curve[999]);
    }
}
