//! What scoring and updating looked like, under the names that dashboards know.

use std::ops::Range;

use super::advantages::extremes;
use crate::trainer::{
    correction::CorrectionStats,
    loss::Term,
    preference::dpo,
    reward::Reward,
    skips::Skips,
    stats::{Mismatch, RunningMoments, Summary},
};

/// What a critic expected of an iteration's tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foresight {
    /// Values before the update.
    pub values: Summary,
    /// What the critic is to learn.
    pub returns: Summary,
    /// How much of the returns' variance the values explain.
    pub explained_variance: f64,
}

impl Foresight {
    fn metrics(&self) -> [(&'static str, f64); 7] {
        [
            ("critic/values/mean", self.values.mean),
            ("critic/values/min", self.values.min),
            ("critic/values/max", self.values.max),
            ("critic/returns/mean", self.returns.mean),
            ("critic/returns/min", self.returns.min),
            ("critic/returns/max", self.returns.max),
            ("critic/vf_explained_var", self.explained_variance),
        ]
    }
}

/// What an iteration's rollouts looked like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScoreStats {
    /// Scores as they came, before normalization, clipping and penalties.
    pub scores: Summary,
    /// KL from the reference: mean over completions of the sum of k1 over tokens, whatever the penalty's estimator.
    /// `None` without a reference.
    pub kl: Option<f64>,
    /// Mean over completions of the KL penalty in the reward.
    pub non_score_reward: f64,
    /// Mean over completions of the whole reward.
    pub rlhf_reward: f64,
    /// Mean over completions of the sum of `-old_logprob`: an estimate of the entropy.
    pub entropy: f64,
    /// Completions that ended by themselves.
    pub ended: usize,
    /// What each completion earned, KL penalty included, in the order of the rollouts.
    pub rewards: Vec<f32>,
    /// KL from the reference over each completion: the sum of k1 over its tokens.
    pub kls: Vec<f32>,
    /// Tokens of each completion, without its prompt.
    pub lengths: Vec<f32>,
    /// Tokens of each completion's prompt.
    pub prompt_lengths: Vec<f32>,
    /// Advantages, before whitening.
    pub advantages: Summary,
    /// What the critic expected, where there is one.
    pub foresight: Option<Foresight>,
    /// Share of prompts whose completions all scored the same, where they are compared with each other.
    pub zero_std: Option<f64>,
    /// Completions that count in the policy's loss.
    pub learning: usize,
    /// The pairs of online DPO.
    pub pairs: Option<PairStats>,
    /// Engine against trainer, over the tokens that the engine sampled with the weights that are to learn. `None` without
    /// such tokens, and where the old log-probs are the engine's.
    pub mismatch: Option<Mismatch>,
    /// The same over the tokens of older weights: what both the optimizer steps since and the engine differ by.
    pub staleness: Option<Mismatch>,
    /// The importance weights, where they act.
    pub correction: Option<CorrectionStats>,
}

impl ScoreStats {
    /// Returns the metrics: TRL's names for objectives, verl's for lengths and the critic, ours for the mismatch.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics: Vec<(String, f64)> =
            self.of_rewards().into_iter().map(|(name, value)| (name.into(), value)).collect();
        metrics.extend(self.kl.map(|kl| ("objective/kl".into(), kl)));
        let foreseen = self.foresight.iter().flat_map(Foresight::metrics);
        metrics.extend(foreseen.map(|(name, value)| (name.into(), value)));
        metrics.extend(self.zero_std.map(|share| ("frac_reward_zero_std".into(), share)));
        metrics.extend(self.pairs.iter().flat_map(PairStats::metrics));
        for (prefix, compared) in [("parity", &self.mismatch), ("staleness", &self.staleness)] {
            metrics.extend(compared.iter().flat_map(|compared| compared.metrics(prefix)));
        }
        let active = f64::from(u8::from(self.correction.is_some()));
        metrics.push(("correction/active".into(), active));
        let weights = self.correction.iter().flat_map(CorrectionStats::metrics);
        metrics.extend(weights.map(|(name, value)| (name.into(), value)));
        metrics
    }

    fn of_rewards(&self) -> [(&'static str, f64); 24] {
        let (lengths, prompts) = (Summary::of(&self.lengths), Summary::of(&self.prompt_lengths));
        let rewards = Summary::of(&self.rewards);
        let unended = 1.0 - self.ended as f64 / self.lengths.len().max(1) as f64;
        [
            ("objective/entropy", self.entropy),
            ("objective/non_score_reward", self.non_score_reward),
            ("objective/rlhf_reward", self.rlhf_reward),
            ("objective/scores", self.scores.mean),
            ("objective/scores_std", self.scores.std),
            ("val/num_eos_tokens", self.ended as f64),
            ("learning_fraction", self.learning as f64 / self.lengths.len().max(1) as f64),
            ("response_length/mean", lengths.mean),
            ("response_length/min", lengths.min),
            ("response_length/max", lengths.max),
            ("response_length/clip_ratio", unended),
            ("prompt_length/mean", prompts.mean),
            ("prompt_length/min", prompts.min),
            ("prompt_length/max", prompts.max),
            ("critic/score/mean", self.scores.mean),
            ("critic/score/min", self.scores.min),
            ("critic/score/max", self.scores.max),
            ("critic/rewards/mean", rewards.mean),
            ("critic/rewards/min", rewards.min),
            ("critic/rewards/max", rewards.max),
            ("critic/advantages/mean", self.advantages.mean),
            ("critic/advantages/std", self.advantages.std),
            ("critic/advantages/min", self.advantages.min),
            ("critic/advantages/max", self.advantages.max),
        ]
    }
}

/// What an iteration's pairs looked like before the update. Means are over pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairStats {
    /// Prompts whose completions did not all score the same.
    pub count: usize,
    /// DPO's loss.
    pub loss: f64,
    /// Share of pairs of which the policy favours the better one, compared with the reference.
    pub accuracy: f64,
    /// By how much, in implicit rewards: `beta` times the difference of the log-ratios.
    pub margin: f64,
}

impl PairStats {
    /// Judges the pairs of groups of completions, of which only those count that learn.
    pub(super) fn of(
        groups: &[Range<usize>],
        scored: &[Reward],
        (log_ratios, learns): (&[f32], &[bool]),
        beta: f64,
    ) -> Self {
        let mut stats = Self::default();
        for group in groups {
            let members: Vec<usize> = group.clone().filter(|&i| learns[i]).collect();
            let scores: Vec<f32> = members.iter().map(|&i| scored[i].score()).collect();
            let Some([chosen, rejected]) = extremes(&scores) else { continue };
            let log_ratio = |member: usize| f64::from(log_ratios[members[member]]);
            let gap = log_ratio(chosen) - log_ratio(rejected);
            stats.count += 1;
            stats.loss += dpo(gap, beta, 0.0, 0.0).loss;
            stats.accuracy += f64::from(u8::from(gap > 0.0));
            stats.margin += beta * gap;
        }
        let of = stats.count.max(1) as f64;
        Self {
            loss: stats.loss / of,
            accuracy: stats.accuracy / of,
            margin: stats.margin / of,
            ..stats
        }
    }

    fn metrics(&self) -> [(String, f64); 4] {
        [
            ("pairs/count", self.count as f64),
            ("pairs/loss", self.loss),
            ("rewards/accuracies", self.accuracy),
            ("rewards/margins", self.margin),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}

/// What the critic's optimizer steps looked like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ValueStats {
    /// Mean of the loss over optimizer steps, before `value_coef`.
    pub loss: f64,
    /// Share of tokens whose value's loss a clip holds.
    pub clip_fraction: f64,
    /// Mean norm of the gradient before clipping.
    pub grad_norm: f64,
}

/// What an iteration's optimizer steps looked like. Means are over all loss tokens of all optimizer steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PpoStats {
    /// Completions trained on since the start.
    pub episodes: u64,
    /// The policy's learning rate at its last optimizer step.
    pub lr: f64,
    /// The weight of the KL penalty.
    pub kl_coef: f64,
    /// Optimizer steps of the policy; fewer than planned where `target_kl` stopped them.
    pub policy_steps: u64,
    /// Mean of the surrogate (without KL and entropy) over optimizer steps, each normalised as the options say.
    pub policy_loss: f64,
    /// How the critic learned, where there is one.
    pub values: Option<ValueStats>,
    /// Mean of `(logprob - old)^2 / 2`.
    pub approx_kl: f64,
    /// Share of tokens whose surrogate a clip holds.
    pub clip_fraction: f64,
    /// Mean entropy of the policy (nats).
    pub entropy: f64,
    /// Mean ratio.
    pub ratio: f64,
    /// Variance of the ratio over tokens.
    pub ratio_variance: f64,
    /// Largest distance of a ratio from 1 at the first optimizer step. Exactly 0 with recomputed old log-probs.
    pub first_ratio_error: f64,
    /// Mean norm of the policy's gradient before clipping.
    pub policy_grad_norm: f64,
    /// Optimizer steps of the policy that were skipped; they count nowhere else.
    pub policy_skips: Skips,
    /// Those of the critic.
    pub critic_skips: Skips,
}

impl PpoStats {
    pub(super) fn of(policy: &PolicyTally, values: Option<&ValueTally>) -> Self {
        Self {
            policy_steps: policy.grad_norm.count(),
            policy_loss: policy.loss.mean(),
            values: values.map(ValueTally::stats),
            approx_kl: policy.kl.mean(),
            clip_fraction: policy.clipped.mean(),
            entropy: policy.entropy.mean(),
            ratio: policy.ratio.mean(),
            ratio_variance: policy.ratio.variance(),
            first_ratio_error: policy.first_ratio_error,
            policy_grad_norm: policy.grad_norm.mean(),
            ..Self::default()
        }
    }

    /// Returns how many optimizer steps were skipped, of the policy and the critic.
    pub fn skipped(&self) -> u64 {
        self.policy_skips.count() + self.critic_skips.count()
    }

    /// Returns the most optimizer steps that the policy, or the critic, skipped one right after the other.
    pub fn skipped_in_a_row(&self) -> u64 {
        self.policy_skips.longest().max(self.critic_skips.longest())
    }

    /// Returns the metrics under TRL's names, where it has one.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        let mut metrics = vec![
            ("policy/approxkl_avg", self.approx_kl),
            ("policy/clipfrac_avg", self.clip_fraction),
            ("policy/entropy_avg", self.entropy),
            ("policy/grad_norm", self.policy_grad_norm),
            ("loss/policy_avg", self.policy_loss),
            ("val/ratio", self.ratio),
            ("val/ratio_var", self.ratio_variance),
            ("parity/first_ratio_error", self.first_ratio_error),
            ("objective/kl_coef", self.kl_coef),
            ("optimizer_steps", self.policy_steps as f64),
            ("optimizer/skipped", self.skipped() as f64),
            ("lr", self.lr),
            ("episode", self.episodes as f64),
        ];
        if let Some(values) = &self.values {
            metrics.extend([
                ("loss/value_avg", values.loss),
                ("val/clipfrac_avg", values.clip_fraction),
                ("val/grad_norm", values.grad_norm),
            ]);
        }
        metrics
    }
}

/// Adds up what the policy's tokens and steps say.
#[derive(Clone, Debug, Default)]
pub(super) struct PolicyTally {
    loss: RunningMoments,
    kl: RunningMoments,
    clipped: RunningMoments,
    entropy: RunningMoments,
    ratio: RunningMoments,
    grad_norm: RunningMoments,
    first_ratio_error: f64,
    step_loss: f64,
    step_kl: RunningMoments,
}

impl PolicyTally {
    /// Takes in a token: its term and weight; then surrogate, log-ratio, ratio and entropy.
    pub(super) fn token(&mut self, term: &Term, weight: f64, seen: (f64, f64, f64, f64)) {
        let (surrogate, log_ratio, ratio, entropy) = seen;
        self.step_loss += surrogate * weight;
        self.step_kl.push(log_ratio * log_ratio / 2.0);
        self.kl.push(log_ratio * log_ratio / 2.0);
        self.clipped.push(f64::from(term.clipped));
        self.entropy.push(entropy);
        self.ratio.push(ratio);
        if self.grad_norm.count() == 0 {
            self.first_ratio_error = self.first_ratio_error.max((ratio - 1.0).abs());
        }
    }

    /// Returns the loss of the step under way.
    pub(super) fn step_loss(&self) -> f64 {
        self.step_loss
    }

    /// Ends an optimizer step. Returns the mean KL of its tokens.
    pub(super) fn step(&mut self, grad_norm: f64) -> f64 {
        self.loss.push(std::mem::take(&mut self.step_loss));
        self.grad_norm.push(grad_norm);
        std::mem::take(&mut self.step_kl).mean()
    }
}

/// Adds up what the critic's tokens and steps say.
#[derive(Clone, Debug, Default)]
pub(super) struct ValueTally {
    loss: RunningMoments,
    clipped: RunningMoments,
    grad_norm: RunningMoments,
    step_loss: f64,
}

impl ValueTally {
    fn stats(&self) -> ValueStats {
        ValueStats {
            loss: self.loss.mean(),
            clip_fraction: self.clipped.mean(),
            grad_norm: self.grad_norm.mean(),
        }
    }

    pub(super) fn token(&mut self, term: &Term, weight: f64) {
        self.step_loss += term.loss * weight;
        self.clipped.push(f64::from(term.clipped));
    }

    /// Returns the loss of the step under way.
    pub(super) fn step_loss(&self) -> f64 {
        self.step_loss
    }

    pub(super) fn step(&mut self, grad_norm: f64) {
        self.loss.push(std::mem::take(&mut self.step_loss));
        self.grad_norm.push(grad_norm);
    }
}
