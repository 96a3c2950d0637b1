//! Advantages: how much better a token did than the critic expected, or than other completions of its prompt did. One
//! completion, or one prompt's, at a time; pure f32 slices.

/// Estimates the advantages of one completion's tokens by GAE (Schulman et al., 2016, equations 11 and 16).
///
/// ```text
/// delta_t = r_t + gamma V_{t+1} - V_t
/// A_t     = delta_t + gamma lambda A_{t+1}
/// ```
///
/// `rewards[t]` is what token `t` earned, `values[t]` what the critic expected before it. After the last token comes
/// nothing: its next value and next advantage are 0, whether the completion ended by itself or was cut off (as in TRL
/// and NeMo-Aligner). The returns, which the critic learns, are `A + V`.
///
/// # Panics
/// If the slices differ in length.
///
/// ```
/// use rollforge::trainer::advantage::gae;
/// assert_eq!(gae(&[0.0, 1.0], &[0.5, 0.5], 1.0, 1.0), [0.5, 0.5]);
/// ```
pub fn gae(rewards: &[f32], values: &[f32], gamma: f32, lambda: f32) -> Vec<f32> {
    assert_eq!(rewards.len(), values.len(), "one value per reward");
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
    }
    advantages
}

/// Returns what each token of a completion and those after it earned, discounted: `G_t = r_t + gamma G_{t+1}`.
///
/// ```
/// use rollforge::trainer::advantage::return_to_go;
/// assert_eq!(return_to_go(&[1.0, 0.0, 4.0], 0.5), [2.0, 2.0, 4.0]);
/// ```
pub fn return_to_go(rewards: &[f32], gamma: f32) -> Vec<f32> {
    gae(rewards, &vec![0.0; rewards.len()], gamma, 1.0)
}

/// Keeps a group whose rewards hardly differ from being blown up (as TRL does).
const GROUP_EPSILON: f64 = 1e-4;

/// Returns how much better each completion of a prompt did than all of them on average (Shao et al., 2024, 4.1.2):
/// `(R - mean) / (std + 1e-4)`, or without `by_std` the difference alone (Liu et al., 2025, equation 4).
///
/// `std` is the unbiased one (divided by n - 1). Fewer than two completions have nothing to be compared with: 0.
pub fn group_relative(rewards: &[f32], by_std: bool) -> Vec<f32> {
    if rewards.len() < 2 {
        return vec![0.0; rewards.len()];
    }
    let (mean, variance) = moments(rewards);
    let divisor = if by_std { variance.sqrt() + GROUP_EPSILON } else { 1.0 };
    rewards.iter().map(|&reward| ((f64::from(reward) - mean) / divisor) as f32).collect()
}

/// Returns how much better each completion of a prompt did than the others on average (Kool et al., 2019; Ahmadian et
/// al., 2024, equation 8): `R - mean of the others' R`, which is `n / (n - 1)` times the distance from the mean of all.
///
/// Fewer than two completions have nothing to be compared with: 0.
pub fn leave_one_out(rewards: &[f32]) -> Vec<f32> {
    let n = rewards.len() as f32;
    group_relative(rewards, false)
        .into_iter()
        .map(|distance| distance * n / (n - 1.0).max(1.0))
        .collect()
}

/// Whether whitening moves the mean to 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mean {
    /// To 0: for advantages.
    Shift,
    /// It stays: for rewards.
    Keep,
}

/// Divides by the standard deviation: `(x - mean) / sqrt(var + 1e-8)`, and adds the mean again for [`Mean::Keep`].
///
/// `var` is the unbiased variance (divided by n - 1), as in TRL and verl; NeMo-Aligner's is the population's. The sums
/// are in f64, over all entries in their order. Fewer than two entries have no variance: only their mean moves.
pub fn whiten(numbers: &mut [f32], mean_is: Mean) {
    let (mean, variance) = moments(numbers);
    let scale = if numbers.len() < 2 { 1.0 } else { 1.0 / (variance + 1e-8).sqrt() };
    let offset = if mean_is == Mean::Keep { mean } else { 0.0 };
    for x in numbers {
        *x = ((f64::from(*x) - mean) * scale + offset) as f32;
    }
}

/// Returns mean and unbiased variance, both 0 where there is nothing to take them from.
pub fn moments(numbers: &[f32]) -> (f64, f64) {
    let n = numbers.len() as f64;
    if numbers.is_empty() {
        return (0.0, 0.0);
    }
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares: f64 = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    (mean, if numbers.len() < 2 { 0.0 } else { squares / (n - 1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REWARDS: [f32; 4] = [-0.1, 0.2, -0.3, 1.0];
    const VALUES: [f32; 4] = [0.5, 0.4, 0.7, 0.6];

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "{got} instead of {expected}");
        }
    }

    #[test]
    fn gae_agrees_with_the_table() {
        // gamma 0.9, lambda 0.8, gamma lambda 0.72.
        // delta_3 = 1.0            - 0.6 =  0.4              A_3 =  0.4
        // delta_2 = -0.3 + 0.54    - 0.7 = -0.46             A_2 = -0.46 + 0.72 * 0.4      = -0.172
        // delta_1 =  0.2 + 0.63    - 0.4 =  0.43             A_1 =  0.43 + 0.72 * -0.172   =  0.30616
        // delta_0 = -0.1 + 0.36    - 0.5 = -0.24             A_0 = -0.24 + 0.72 * 0.30616  = -0.0195648
        close(&gae(&REWARDS, &VALUES, 0.9, 0.8), &[-0.019_564_8, 0.306_16, -0.172, 0.4]);
    }

    #[test]
    fn lambda_1_is_the_discounted_return_less_the_value() {
        let mut expected = [0.0; 4];
        for t in 0..4 {
            let tail = REWARDS[t..].iter().rev().fold(0.0, |later, r| r + 0.9 * later);
            expected[t] = tail - VALUES[t];
        }
        close(&gae(&REWARDS, &VALUES, 0.9, 1.0), &expected);
    }

    #[test]
    fn lambda_0_is_the_temporal_difference_error() {
        let expected: Vec<f32> = (0..4)
            .map(|t| REWARDS[t] + 0.9 * VALUES.get(t + 1).copied().unwrap_or(0.0) - VALUES[t])
            .collect();
        close(&gae(&REWARDS, &VALUES, 0.9, 0.0), &expected);
    }

    #[test]
    fn gamma_0_sees_the_next_reward_alone() {
        let expected: Vec<f32> = REWARDS.iter().zip(VALUES).map(|(r, v)| r - v).collect();
        close(&gae(&REWARDS, &VALUES, 0.0, 0.7), &expected);
    }

    #[test]
    fn a_perfect_critic_leaves_no_advantage() {
        close(&gae(&[0.0, 0.0, 2.0], &[2.0, 2.0, 2.0], 1.0, 0.95), &[0.0; 3]);
    }

    #[test]
    fn return_to_go_agrees_with_the_table() {
        // gamma 0.9: 1; -0.3 + 0.9 = 0.6; 0.2 + 0.54 = 0.74; -0.1 + 0.666 = 0.566
        close(&return_to_go(&REWARDS, 0.9), &[0.566, 0.74, 0.6, 1.0]);
        close(&return_to_go(&REWARDS, 1.0), &[0.8, 0.9, 0.7, 1.0]);
    }

    #[test]
    fn group_advantages_agree_with_the_table() {
        // Mean 2, squares 1 + 1 + 1 + 9 = 12 over 3: deviation 2.
        let rewards = [1.0, 1.0, 1.0, 5.0];
        close(&group_relative(&rewards, false), &[-1.0, -1.0, -1.0, 3.0]);
        let (low, high) = (-1.0 / 2.0001, 3.0 / 2.0001);
        close(&group_relative(&rewards, true), &[low, low, low, high]);
        // The others' means: 7 / 3 three times, and 1.
        let low = 1.0 - 7.0 / 3.0;
        close(&leave_one_out(&rewards), &[low, low, low, 4.0]);
    }

    #[test]
    fn a_group_with_nothing_to_compare_has_no_advantage() {
        for rewards in [vec![], vec![3.0], vec![0.1; 3], vec![-7.3; 16]] {
            let none = vec![0.0; rewards.len()];
            assert_eq!(group_relative(&rewards, true), none);
            assert_eq!(group_relative(&rewards, false), none);
            assert_eq!(leave_one_out(&rewards), none);
        }
    }

    #[test]
    fn whitening_agrees_with_the_table() {
        // Mean 2.5, squares 2.25 + 0.25 + 0.25 + 2.25 = 5, unbiased variance 5 / 3, deviation 1.2909944.
        let mut numbers = [1.0, 2.0, 3.0, 4.0];
        whiten(&mut numbers, Mean::Shift);
        close(&numbers, &[-1.161_895, -0.387_298_3, 0.387_298_3, 1.161_895]);
        let mut numbers = [1.0, 2.0, 3.0, 4.0];
        whiten(&mut numbers, Mean::Keep);
        close(&numbers, &[1.338_105, 2.112_701_7, 2.887_298_3, 3.661_895]);
    }

    #[test]
    fn whitening_one_or_equal_numbers_stays_finite() {
        let mut one = [3.0];
        whiten(&mut one, Mean::Shift);
        assert_eq!(one, [0.0]);
        let mut equal = [3.0; 5];
        whiten(&mut equal, Mean::Keep);
        assert_eq!(equal, [3.0; 5]);
        whiten(&mut [], Mean::Shift);
    }
}
