//! From scores to per-token rewards: normalization, clipping, penalties, and the KL from the reference.

use serde::{Deserialize, Serialize};

use super::{
    config::{PpoOptions, ScoreNormalization},
    stats::{RunningMoments, Summary, divisor},
};

/// What a completion earned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reward {
    /// One score for the whole, paid at its last token.
    Score(f32),
    /// One reward for each token of the completion.
    PerToken(Vec<f32>),
}

impl Reward {
    /// Returns the score, which for per-token rewards is their sum.
    pub fn score(&self) -> f32 {
        match self {
            Self::Score(score) => *score,
            Self::PerToken(rewards) => rewards.iter().sum(),
        }
    }

    /// Says whether every number is finite.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Score(score) => score.is_finite(),
            Self::PerToken(rewards) => rewards.iter().all(|reward| reward.is_finite()),
        }
    }
}

/// Brings scores to a common scale, clips them, and charges completions that did not end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreShaper {
    normalization: ScoreNormalization,
    clip: f64,
    missing_eos_penalty: f64,
    running: RunningMoments,
}

impl ScoreShaper {
    /// Sets up what the options ask for, with no score seen yet.
    pub fn new(options: &PpoOptions) -> Self {
        Self {
            normalization: options.score_normalization,
            clip: options.reward_clip,
            missing_eos_penalty: options.missing_eos_penalty,
            running: RunningMoments::default(),
        }
    }

    /// Shapes the scores of one iteration. `ended[i]` says whether completion `i` ended by itself.
    ///
    /// ```text
    /// s = (s - mean) / std                 batch: of these scores; running: of all so far, these included
    /// s = clip(s, -clip, clip)
    /// s = s - missing_eos_penalty          where the completion did not end
    /// ```
    ///
    /// Per-token rewards are divided by the same standard deviation (of the completions' sums) but not shifted, clipped
    /// one by one, and charged at the last token. Scores that do not vary are not divided.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn shape(&mut self, rewards: &[Reward], ended: &[bool]) -> Vec<Reward> {
        assert_eq!(rewards.len(), ended.len(), "one end per reward");
        let (mean, std) = self.scale(rewards);
        let bound = if self.clip > 0.0 { self.clip } else { f64::INFINITY };
        let charged = rewards.iter().zip(ended).map(|(reward, &ended)| {
            let charge = if ended { 0.0 } else { self.missing_eos_penalty };
            match reward {
                Reward::Score(score) => {
                    let scaled = (f64::from(*score) - mean) / std;
                    Reward::Score((scaled.clamp(-bound, bound) - charge) as f32)
                }
                Reward::PerToken(rewards) => {
                    let scaled = |r: &f32| (f64::from(*r) / std).clamp(-bound, bound) as f32;
                    let mut shaped: Vec<f32> = rewards.iter().map(scaled).collect();
                    if let Some(last) = shaped.last_mut() {
                        *last -= charge as f32;
                    }
                    Reward::PerToken(shaped)
                }
            }
        });
        charged.collect()
    }

    /// Returns the mean to subtract and the number to divide by.
    fn scale(&mut self, rewards: &[Reward]) -> (f64, f64) {
        let scores: Vec<f32> = rewards.iter().map(Reward::score).collect();
        match self.normalization {
            ScoreNormalization::None => (0.0, 1.0),
            ScoreNormalization::Batch => {
                let batch = Summary::of(&scores);
                (batch.mean, divisor(batch.std))
            }
            ScoreNormalization::Running => {
                scores.iter().for_each(|&score| self.running.push(score.into()));
                (self.running.mean(), divisor(self.running.variance().sqrt()))
            }
        }
    }
}

/// Returns what each token of a completion earned: its own reward, less the KL penalty, and the score at the last token.
///
/// ```text
/// r_t = -kl_coef kl_t + [t = T - 1] score            (Ziegler et al., 2019, equation 2, told token by token)
/// ```
///
/// `kl[t]` is the estimate at token `t`; pass zeros where the penalty is in the loss.
///
/// # Panics
/// If per-token rewards are not as many as tokens.
pub fn token_rewards(reward: &Reward, kl: &[f32], kl_coef: f32) -> Vec<f32> {
    let mut rewards: Vec<f32> = kl.iter().map(|kl| -kl_coef * kl).collect();
    match reward {
        Reward::Score(score) => {
            if let Some(last) = rewards.last_mut() {
                *last += score;
            }
        }
        Reward::PerToken(own) => {
            assert_eq!(own.len(), rewards.len(), "one reward per token");
            rewards.iter_mut().zip(own).for_each(|(reward, own)| *reward += own);
        }
    }
    rewards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(rewards: &[Reward]) -> Vec<f32> {
        rewards.iter().map(|reward| (reward.score() * 1e5).round() / 1e5).collect()
    }

    fn shaper(options: PpoOptions) -> ScoreShaper {
        ScoreShaper::new(&options)
    }

    const THREE: [Reward; 3] = [Reward::Score(1.0), Reward::Score(2.0), Reward::Score(6.0)];

    #[test]
    fn the_score_is_paid_at_the_last_token_and_kl_at_each() {
        let kl = [0.5, -0.25, 1.0];
        assert_eq!(token_rewards(&Reward::Score(2.0), &kl, 0.125), [-0.0625, 0.03125, 1.875]);
        let own = Reward::PerToken(vec![1.0, 0.0, 2.0]);
        assert_eq!(token_rewards(&own, &kl, 0.125), [0.9375, 0.03125, 1.875]);
        assert_eq!(token_rewards(&Reward::Score(2.0), &[], 0.1), [0.0; 0]);
    }

    #[test]
    fn without_options_scores_stay_as_they_are() {
        let shaped = shaper(PpoOptions::default()).shape(&THREE, &[true, false, true]);
        assert_eq!(shaped, THREE);
    }

    #[test]
    fn an_unended_completion_pays_after_clipping() {
        let options =
            PpoOptions { missing_eos_penalty: 1.0, reward_clip: 1.5, ..PpoOptions::default() };
        let shaped = shaper(options.clone()).shape(&THREE, &[true, false, true]);
        assert_eq!(scores(&shaped), [1.0, 0.5, 1.5]);
        let own = [Reward::PerToken(vec![2.0, 0.5])];
        let shaped = shaper(options).shape(&own, &[false]);
        assert_eq!(shaped, [Reward::PerToken(vec![1.5, -0.5])]);
    }

    #[test]
    fn batch_normalization_forgets_and_the_running_one_remembers() {
        // Mean 3, deviation sqrt(7) = 2.6457513.
        let first = [-0.755_93, -0.377_96, 1.133_89];
        let mut batch = shaper(PpoOptions {
            score_normalization: ScoreNormalization::Batch,
            ..PpoOptions::default()
        });
        assert_eq!(scores(&batch.shape(&THREE, &[true; 3])), first);
        assert_eq!(scores(&batch.shape(&THREE, &[true; 3])), first);
        let mut running = shaper(PpoOptions {
            score_normalization: ScoreNormalization::Running,
            ..PpoOptions::default()
        });
        assert_eq!(scores(&running.shape(&THREE, &[true; 3])), first);
        // Then 1, 2, 6 and 3: mean 3, squares 14, deviation sqrt(14 / 3) = 2.1602469.
        assert_eq!(scores(&running.shape(&[Reward::Score(3.0)], &[true])), [0.0]);
        let again = running.shape(&[Reward::PerToken(vec![3.0, 0.0])], &[true]);
        // And once more 3: deviation sqrt(14 / 4) = 1.8708287; 3 / 1.8708287 = 1.6035675, not shifted.
        assert_eq!(scores(&again), [1.603_57]);
    }

    #[test]
    fn scores_that_do_not_vary_are_not_blown_up() {
        for score_normalization in [ScoreNormalization::Batch, ScoreNormalization::Running] {
            let options = PpoOptions { score_normalization, ..PpoOptions::default() };
            let right = [Reward::PerToken(vec![0.5, 0.5]), Reward::PerToken(vec![0.5, 0.5])];
            assert_eq!(shaper(options.clone()).shape(&right, &[true; 2]), right);
            let alike = [Reward::Score(0.1), Reward::Score(0.1), Reward::Score(0.1)];
            assert_eq!(scores(&shaper(options).shape(&alike, &[true; 3])), [0.0; 3]);
        }
    }

    #[test]
    fn a_reward_is_a_number_or_a_list_in_json() {
        assert_eq!(serde_json::from_str::<Reward>("1.5").unwrap(), Reward::Score(1.5));
        let list: Reward = serde_json::from_str("[0.5, 1]").unwrap();
        assert_eq!((list.score(), list.is_finite()), (1.5, true));
        assert!(!Reward::Score(f32::NAN).is_finite());
    }
}
