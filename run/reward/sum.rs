//! The weighted sum of what several sources say.

use crate::trainer::reward::Reward;

/// Returns the reward of each completion:
///
/// ```text
/// r_t = sum over sources of weight (r_t of the source + [t = T - 1] score of the source)
/// ```
///
/// A whole score for a completion that no source rewards token by token. A source with weight 0 adds nothing, whatever it
/// says. The sums are in f64, so that weight 1 alone changes no bit.
///
/// # Panics
/// If the sources judged different numbers of completions.
pub(in crate::run) fn weighted_sum(
    sources: &[(f64, Vec<Reward>)],
    completions: usize,
) -> Vec<Reward> {
    let paid = || sources.iter().filter(|(weight, _)| *weight != 0.0);
    assert!(sources.iter().all(|(_, rewards)| rewards.len() == completions), "one reward each");
    let sum = |i| total(paid().map(|(weight, rewards)| (*weight, &rewards[i])));
    (0..completions).map(sum).collect()
}

fn total<'a>(parts: impl Iterator<Item = (f64, &'a Reward)>) -> Reward {
    let mut score = None;
    let mut tokens: Vec<f64> = Vec::new();
    for (weight, reward) in parts {
        match reward {
            Reward::Score(part) => {
                let part = weight * f64::from(*part);
                score = Some(score.map_or(part, |sum: f64| sum + part));
            }
            Reward::PerToken(parts) => {
                let known = tokens.len();
                let weighted = |part: &f32| weight * f64::from(*part);
                tokens.iter_mut().zip(parts).for_each(|(sum, part)| *sum += weighted(part));
                tokens.extend(parts.iter().skip(known).map(weighted));
            }
        }
    }
    match (tokens.last_mut(), score) {
        (None, score) => Reward::Score(score.unwrap_or_default() as f32),
        (Some(last), score) => {
            *last += score.unwrap_or_default();
            Reward::PerToken(tokens.into_iter().map(|sum| sum as f32).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(sources: &[(f64, Reward)]) -> Reward {
        let sources: Vec<_> =
            sources.iter().map(|(weight, reward)| (*weight, vec![reward.clone()])).collect();
        weighted_sum(&sources, 1).remove(0)
    }

    fn tokens(rewards: &[f32]) -> Reward {
        Reward::PerToken(rewards.to_vec())
    }

    #[test]
    fn scores_are_added_by_their_weights() {
        let score = Reward::Score;
        assert_eq!(sum(&[(2.0, score(0.75)), (-0.5, score(3.0))]), score(0.0));
        assert_eq!(sum(&[(0.5, score(1.0)), (1.0, score(0.25)), (4.0, score(1.0))]), score(4.75));
    }

    #[test]
    fn a_score_beside_rewards_of_tokens_is_paid_at_the_last() {
        let own = tokens(&[1.0, 0.0, 2.0]);
        assert_eq!(sum(&[(0.5, own.clone()), (2.0, Reward::Score(1.5))]), tokens(&[0.5, 0.0, 4.0]));
        assert_eq!(sum(&[(2.0, Reward::Score(1.5)), (0.5, own.clone())]), tokens(&[0.5, 0.0, 4.0]));
        assert_eq!(sum(&[(1.0, own), (-1.0, tokens(&[0.5, 0.5, 0.5]))]), tokens(&[0.5, -0.5, 1.5]));
    }

    #[test]
    fn one_with_weight_1_is_kept_bit_for_bit_and_one_with_weight_0_adds_nothing() {
        for reward in [Reward::Score(0.1), Reward::Score(f32::NAN), tokens(&[0.1, -0.0, 1e-40])] {
            for other in [Reward::Score(f32::NAN), tokens(&[5.0, 5.0, 5.0])] {
                let kept = sum(&[(0.0, other.clone()), (1.0, reward.clone())]);
                assert_eq!(format!("{kept:?}"), format!("{reward:?}"));
            }
        }
        assert_eq!(sum(&[(0.0, Reward::Score(3.0))]), Reward::Score(0.0));
    }
}
