//! Habits of the field, by name: one row of options for each algorithm.

use serde::{Deserialize, Serialize};

use super::KlPlace;
use crate::trainer::{batch::Normalization, kl::KlEstimator};

/// How much better a token did than expected, and what says what was expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageEstimator {
    /// A critic, by generalised advantage estimation (Schulman et al., 2016).
    #[default]
    Gae,
    /// Nothing: the discounted return from the token on (REINFORCE++, Hu, 2025).
    Reinforce,
    /// The mean score of the prompt's completions, taken off that return (REINFORCE++-baseline).
    ReinforceBaseline,
    /// The mean reward of the prompt's other completions (RLOO, Ahmadian et al., 2024).
    Rloo,
    /// The mean reward of the prompt's completions, in units of its standard deviation (GRPO, Shao et al., 2024).
    Grpo,
    /// None: the prompt's `best_of` highest scored completions count 1, and the others are left out (rejection sampling;
    /// RAFT, Dong et al., 2023).
    BestOf,
    /// None: the prompt's highest and lowest scored completions are a pair, each with DPO's derivative for it, and the others
    /// are left out (online DPO, Guo et al., 2024).
    OnlineDpo,
}

impl AdvantageEstimator {
    /// Says whether there is a critic.
    pub fn has_critic(self) -> bool {
        self == Self::Gae
    }

    /// Says whether the completions of a prompt are compared with each other.
    pub fn compares_groups(self) -> bool {
        !matches!(self, Self::Gae | Self::Reinforce)
    }

    /// Says whether only some of a prompt's completions count.
    pub fn selects(self) -> bool {
        matches!(self, Self::BestOf | Self::OnlineDpo)
    }

    /// Says whether advantages are whitened over the iteration unless told otherwise.
    pub(super) fn whitens(self) -> bool {
        matches!(self, Self::Gae | Self::Reinforce | Self::ReinforceBaseline)
    }
}

/// What of a token the policy's loss holds back when the policy has moved away from the old one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyLossKind {
    /// The clipped surrogate on the token's ratio (Schulman et al., 2017).
    #[default]
    Ppo,
    /// The same on the ratio of the whole completion, the geometric mean of its tokens' (Zheng et al., 2025).
    Gspo,
    /// The log-prob, times the token's ratio as a constant that is bounded from above (CISPO, MiniMax, 2025).
    Cispo,
    /// The log-prob: no ratio (Williams, 1992).
    Reinforce,
}

impl PolicyLossKind {
    /// Says whether the loss is the clipped surrogate of some ratio.
    pub(super) fn is_surrogate(self) -> bool {
        matches!(self, Self::Ppo | Self::Gspo)
    }
}

/// An algorithm's name: it sets the options that are not given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PpoPreset {
    /// Preference learning by PPO: 4 epochs, lambda 0.95 (Ziegler et al., 2019, and its reproductions).
    #[default]
    Rlhf,
    /// Verifiable rewards by PPO: 1 epoch, lambda 1.
    Reasoning,
    /// Group relative policy optimisation (Shao et al., 2024).
    Grpo,
    /// GRPO without the standard deviation and without the lengths (Liu et al., 2025).
    DrGrpo,
    /// GRPO with a mean over tokens and a higher upper clip (Yu et al., 2025).
    Dapo,
    /// GRPO on the ratio of whole completions (Zheng et al., 2025).
    Gspo,
    /// GRPO with a bounded ratio as a constant (MiniMax, 2025).
    Cispo,
    /// REINFORCE, leave one out (Ahmadian et al., 2024).
    Rloo,
    /// REINFORCE++ (Hu, 2025).
    ReinforcePp,
    /// Imitation of a prompt's best completions (Dong et al., 2023).
    RejectionSampling,
    /// DPO on pairs that the policy samples (Guo et al., 2024).
    OnlineDpo,
    /// On-policy distillation (Agarwal et al., 2024): `model.reference` is the teacher, and how much less probable it finds a
    /// token is all that the token is charged for. Wants `reward.kind = "none"`.
    Distillation,
}

/// The options that a preset sets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Habits {
    pub(super) epochs: usize,
    pub(super) gamma: f64,
    pub(super) gae_lambda: f64,
    pub(super) advantage: AdvantageEstimator,
    pub(super) group_std: bool,
    pub(super) whiten_advantages: Option<bool>,
    pub(super) policy_loss: PolicyLossKind,
    pub(super) loss_normalization: Normalization,
    pub(super) clip_range: f64,
    pub(super) clip_range_high: Option<f64>,
    pub(super) kl_coef: f64,
    pub(super) kl_estimator: KlEstimator,
    pub(super) kl_in: KlPlace,
}

/// Preference learning by PPO.
const RLHF: Habits = Habits {
    epochs: 4,
    gamma: 1.0,
    gae_lambda: 0.95,
    advantage: AdvantageEstimator::Gae,
    group_std: true,
    whiten_advantages: None,
    policy_loss: PolicyLossKind::Ppo,
    loss_normalization: Normalization::TokenMean,
    clip_range: 0.2,
    clip_range_high: None,
    kl_coef: 0.05,
    kl_estimator: KlEstimator::K1,
    kl_in: KlPlace::Reward,
};

/// One pass, nothing discounted.
const REASONING: Habits = Habits { epochs: 1, gae_lambda: 1.0, ..RLHF };

/// No reference model, unless a coefficient is given.
const GRPO: Habits = Habits {
    advantage: AdvantageEstimator::Grpo,
    loss_normalization: Normalization::SeqMeanTokenMean,
    kl_coef: 0.0,
    kl_estimator: KlEstimator::K3,
    kl_in: KlPlace::Loss,
    ..REASONING
};

impl PpoPreset {
    pub(super) fn habits(self) -> Habits {
        match self {
            Self::Rlhf => RLHF,
            Self::Reasoning => REASONING,
            Self::Grpo => GRPO,
            Self::DrGrpo => Habits {
                group_std: false,
                loss_normalization: Normalization::SeqMeanTokenSumNorm,
                ..GRPO
            },
            Self::Dapo => Habits {
                loss_normalization: Normalization::TokenMean,
                clip_range_high: Some(0.28),
                ..GRPO
            },
            Self::Gspo => Habits {
                policy_loss: PolicyLossKind::Gspo,
                clip_range: 3e-4,
                clip_range_high: Some(4e-4),
                ..GRPO
            },
            Self::Cispo => Habits {
                policy_loss: PolicyLossKind::Cispo,
                loss_normalization: Normalization::TokenMean,
                clip_range_high: Some(4.0),
                ..GRPO
            },
            Self::Rloo => Habits { advantage: AdvantageEstimator::Rloo, ..REASONING },
            Self::ReinforcePp => {
                Habits { advantage: AdvantageEstimator::Reinforce, kl_coef: 0.01, ..REASONING }
            }
            Self::RejectionSampling => Habits {
                advantage: AdvantageEstimator::BestOf,
                policy_loss: PolicyLossKind::Reinforce,
                kl_coef: 0.0,
                ..REASONING
            },
            Self::OnlineDpo => Habits {
                advantage: AdvantageEstimator::OnlineDpo,
                policy_loss: PolicyLossKind::Reinforce,
                loss_normalization: Normalization::SeqMeanTokenSum,
                kl_coef: 0.0,
                ..REASONING
            },
            Self::Distillation => Habits {
                gamma: 0.0,
                advantage: AdvantageEstimator::Reinforce,
                whiten_advantages: Some(false),
                kl_coef: 1.0,
                ..REASONING
            },
        }
    }
}
