//! PPO's options: every detail that reproductions disagree on is a switch.

mod validate;

use serde::{Deserialize, Serialize};

use super::{AdvantageEstimator, CorrectionOptions, PolicyLossKind, PpoPreset};
use crate::trainer::{batch::Normalization, kl::KlEstimator};

/// Where the KL penalty acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlPlace {
    /// Taken off each token's reward.
    #[default]
    Reward,
    /// Added to the policy's loss.
    Loss,
}

/// Which log-probs the ratio starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OldLogprobs {
    /// The trainer's own, computed before the first optimizer step: the first ratio is exactly 1. How far the engine's
    /// are from them is measured, and `correction` weights tokens by it.
    #[default]
    Recompute,
    /// The engine's, noted while sampling: one forward pass fewer, and the ratio corrects for the engine's numerics, within
    /// its clip. Nothing is measured (no `parity/` metrics), gated or weighted.
    Rollout,
}

/// At which temperature the trainer takes log-probs: policy, old policy and reference alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogprobTemperature {
    /// That of the sampler, so that the trained distribution is the sampled one.
    #[default]
    Sampling,
    /// 1, whatever the sampler used.
    One,
}

/// How scores are brought to a common scale before they become rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScoreNormalization {
    /// Not at all.
    #[default]
    None,
    /// Less the mean and divided by the standard deviation of this iteration's scores.
    Batch,
    /// The same over all scores seen so far in the run.
    Running,
}

/// Where the critic's weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueInit {
    /// The reward model, head included.
    #[default]
    RewardModel,
    /// The initial policy, under a head of zeros.
    Policy,
}

/// Options of PPO (Schulman et al., 2017) on language models (Ziegler et al., 2019), and of its relatives without a critic:
/// an advantage estimator and a loss, which combine as they please.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoOptions {
    /// Sets what is not given of `epochs`, `gamma`, `gae_lambda`, `advantage`, `group_std`, `whiten_advantages`, `policy_loss`,
    /// `loss_normalization`, `clip_range`, `clip_range_high`, `kl_coef`, `kl_estimator` and `kl_in`. Default `rlhf`, whose values are the
    /// defaults below.
    pub preset: PpoPreset,
    /// Iterations of the run: generate, score, update, refit. Default 100.
    pub iterations: u64,
    /// Prompts per iteration. Default 64.
    pub prompts_per_iteration: usize,
    /// Completions per prompt. Default 1.
    pub samples_per_prompt: usize,
    /// Passes over one iteration's rollouts. Default by the preset: 4 or 1.
    pub epochs: Option<usize>,
    /// Optimizer steps per pass: the rollouts are dealt into so many mini-batches. Default 1.
    pub mini_batches: usize,
    /// Tokens of one forward pass; a longer sequence goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,

    /// Measure the policy on the prompts of `data.eval`, one completion each, every so many iterations and at the end.
    /// Default 0: at the end only. Checkpoints that are chosen by it are measured besides.
    pub eval_every: u64,
    /// The temperature of these completions; everything else is as in `[sampling]`. Default 0: the most likely token.
    pub eval_temperature: f32,

    /// How advantages are estimated. Default `gae`, the only one with a critic; the options of the critic mean nothing
    /// to the others.
    pub advantage: Option<AdvantageEstimator>,
    /// Whether `grpo` divides by the standard deviation of the group. Default true.
    pub group_std: Option<bool>,
    /// How many of a prompt's completions `best_of` imitates. Default 1.
    pub best_of: usize,
    /// What a log-ratio is worth to `online_dpo`: the smaller, the farther the policy may move from its reference. Default 0.1.
    pub dpo_beta: f64,
    /// Leave prompts whose completions all scored the same, before any shaping, out of the policy's loss and of its
    /// denominators (DAPO's dynamic sampling, Yu et al., 2025). Default false.
    pub filter_groups: bool,
    /// How often an iteration draws further prompts in the place of those that `filter_groups` leaves out, until none is
    /// left out. Default 0: it makes do with the others; usual 10.
    pub max_refills: usize,
    /// What is minimised. Default `ppo`.
    pub policy_loss: Option<PolicyLossKind>,

    /// How far below 1 the ratio still has a gradient (epsilon). Default 0.2. `cispo` has no such bound.
    pub clip_range: Option<f64>,
    /// How far above 1; default: `clip_range`.
    pub clip_range_high: Option<f64>,
    /// Bounds the loss of a token with negative advantage by this times its advantage (Ye et al., 2020); above 1.
    /// Default 0: off; usual 3. For `ppo` and `gspo`.
    pub dual_clip: f64,
    /// The exponents of the ratio and of importance weights are kept within plus and minus this. Default 20.
    pub max_log_ratio: f64,
    /// Weight of the policy's entropy, which is added to what is maximised. Default 0.
    pub entropy_coef: f64,
    /// What a token weighs in the losses. Default `token-mean`.
    pub loss_normalization: Option<Normalization>,
    /// The constant of `seq-mean-token-sum-norm` (Dr.GRPO), in tokens. Default: `sampling.max_new_tokens`.
    pub loss_length: Option<usize>,
    /// Stops the iteration's optimizer steps once a mini-batch's `policy/approxkl_avg`, the mean of
    /// `(logprob - old)^2 / 2`, exceeds this. Default 0: off.
    pub target_kl: f64,
    /// Leave completions that did not end by themselves out of the policy's loss (not of the critic's). Default false.
    pub mask_unfinished: bool,
    /// Which log-probs the ratio starts from. Default `recompute`.
    pub old_logprobs: OldLogprobs,
    /// At which temperature log-probs are taken. Default `sampling`.
    pub logprob_temperature: LogprobTemperature,

    /// Where the critic starts. Default `reward_model`.
    pub value_init: ValueInit,
    /// Peak learning rate of the critic; default: the optimizer's `lr`.
    pub critic_lr: Option<f64>,
    /// Weight of the critic's loss, as a factor on its gradient before clipping. Default 0.1.
    pub value_coef: f64,
    /// How far a value may move from its old one before its loss loses its gradient. Default 0.2; 0 switches it off.
    pub value_clip_range: f64,
    /// Iterations at the start in which the critic alone learns. Default 0.
    pub critic_warmup_iterations: u64,

    /// Discount of later rewards. Default 1.
    pub gamma: Option<f64>,
    /// Lambda of generalised advantage estimation. Default by the preset: 0.95 or 1.
    pub gae_lambda: Option<f64>,
    /// Bring advantages to mean 0 and variance 1 over all tokens of the iteration. Default true, and false where
    /// `advantage` is `rloo`, `grpo`, `best_of` or `online_dpo`.
    pub whiten_advantages: Option<bool>,
    /// Bring per-token rewards, KL included, to variance 1 over all tokens of the iteration, keeping the mean.
    /// Default false.
    pub whiten_rewards: bool,

    /// Weight of the KL penalty; where it starts if adaptive. Default 0.05. At 0 no reference model is loaded.
    pub kl_coef: Option<f64>,
    /// How a token's KL is estimated: `k1`, `abs`, `k2` or `k3`. Default `k1`. `k1` has no gradient to speak of as a
    /// loss, so `kl_in = "loss"` needs another.
    pub kl_estimator: Option<KlEstimator>,
    /// Where the penalty acts. Default `reward`.
    pub kl_in: Option<KlPlace>,
    /// Steers the coefficient so that the KL of a completion stays at this (nats). Default 0: the coefficient is fixed.
    pub kl_target: f64,
    /// Inertia of an adaptive coefficient, in samples: n of them change it by a fifth of n / horizon at most. At least
    /// the rollouts of an iteration where there is a target. Default 10000.
    pub kl_horizon: f64,

    /// Taken off the score of a completion that did not end by itself. Default 0: off; usual 1.
    pub missing_eos_penalty: f64,
    /// Scores are kept within plus and minus this, after normalization. Default 0: off.
    pub reward_clip: f64,
    /// How scores are brought to a common scale. Default `none`.
    pub score_normalization: ScoreNormalization,

    /// How tokens are weighted that another policy sampled than the one that learns from them: older weights, or an
    /// engine that computes otherwise.
    pub correction: CorrectionOptions,
}

impl Default for PpoOptions {
    fn default() -> Self {
        Self {
            preset: PpoPreset::Rlhf,
            iterations: 100,
            prompts_per_iteration: 64,
            samples_per_prompt: 1,
            epochs: None,
            mini_batches: 1,
            micro_batch_tokens: 8192,
            eval_every: 0,
            eval_temperature: 0.0,
            advantage: None,
            group_std: None,
            best_of: 1,
            dpo_beta: 0.1,
            filter_groups: false,
            max_refills: 0,
            policy_loss: None,
            clip_range: None,
            clip_range_high: None,
            dual_clip: 0.0,
            max_log_ratio: 20.0,
            entropy_coef: 0.0,
            loss_normalization: None,
            loss_length: None,
            target_kl: 0.0,
            mask_unfinished: false,
            old_logprobs: OldLogprobs::Recompute,
            logprob_temperature: LogprobTemperature::Sampling,
            value_init: ValueInit::RewardModel,
            critic_lr: None,
            value_coef: 0.1,
            value_clip_range: 0.2,
            critic_warmup_iterations: 0,
            gamma: None,
            gae_lambda: None,
            whiten_advantages: None,
            whiten_rewards: false,
            kl_coef: None,
            kl_estimator: None,
            kl_in: None,
            kl_target: 0.0,
            kl_horizon: 10_000.0,
            missing_eos_penalty: 0.0,
            reward_clip: 0.0,
            score_normalization: ScoreNormalization::None,
            correction: CorrectionOptions::default(),
        }
    }
}

impl PpoOptions {
    /// Returns the passes over one iteration's rollouts.
    pub fn epochs(&self) -> usize {
        self.epochs.unwrap_or(self.preset.habits().epochs)
    }

    /// Returns the discount of later rewards.
    pub fn gamma(&self) -> f64 {
        self.gamma.unwrap_or(self.preset.habits().gamma)
    }

    /// Returns the lambda of advantage estimation.
    pub fn gae_lambda(&self) -> f64 {
        self.gae_lambda.unwrap_or(self.preset.habits().gae_lambda)
    }

    /// Returns how advantages are estimated.
    pub fn advantage(&self) -> AdvantageEstimator {
        self.advantage.unwrap_or(self.preset.habits().advantage)
    }

    /// Says whether there is a critic.
    pub fn has_critic(&self) -> bool {
        self.advantage().has_critic()
    }

    /// Says whether there is a reference model: without a penalty nobody asks it, but for online DPO.
    pub fn has_reference(&self) -> bool {
        self.kl_coef() > 0.0 || self.advantage() == AdvantageEstimator::OnlineDpo
    }

    /// Says whether the advantages of a group are divided by their standard deviation.
    pub fn group_std(&self) -> bool {
        self.group_std.unwrap_or(self.preset.habits().group_std)
    }

    /// Returns what is minimised.
    pub fn policy_loss(&self) -> PolicyLossKind {
        self.policy_loss.unwrap_or(self.preset.habits().policy_loss)
    }

    /// Returns what a token weighs in the losses.
    pub fn loss_normalization(&self) -> Normalization {
        self.loss_normalization.unwrap_or(self.preset.habits().loss_normalization)
    }

    /// Returns what the weights of `loss_normalization` are divided by beside.
    pub fn loss_length(&self) -> f64 {
        match self.loss_normalization() {
            Normalization::SeqMeanTokenSumNorm => self.loss_length.unwrap_or(1) as f64,
            _ => 1.0,
        }
    }

    /// Returns how far below 1 the ratio still has a gradient.
    pub fn clip_range(&self) -> f64 {
        self.clip_range.unwrap_or(self.preset.habits().clip_range)
    }

    /// Returns how far above 1 the ratio still has a gradient.
    pub fn clip_range_high(&self) -> f64 {
        let given = self.clip_range_high.or(self.preset.habits().clip_range_high);
        given.unwrap_or(self.clip_range())
    }

    /// Says whether advantages are whitened over the iteration.
    pub fn whiten_advantages(&self) -> bool {
        let given = self.whiten_advantages.or(self.preset.habits().whiten_advantages);
        given.unwrap_or(self.advantage().whitens())
    }

    /// Returns the weight of the KL penalty.
    pub fn kl_coef(&self) -> f64 {
        self.kl_coef.unwrap_or(self.preset.habits().kl_coef)
    }

    /// Returns how a token's KL is estimated.
    pub fn kl_estimator(&self) -> KlEstimator {
        self.kl_estimator.unwrap_or(self.preset.habits().kl_estimator)
    }

    /// Returns where the penalty acts.
    pub fn kl_in(&self) -> KlPlace {
        self.kl_in.unwrap_or(self.preset.habits().kl_in)
    }

    /// Returns the rollouts of one iteration.
    pub fn rollout_batch(&self) -> usize {
        self.prompts_per_iteration.saturating_mul(self.samples_per_prompt)
    }

    /// Returns the most optimizer steps of the critic in a run; the policy takes fewer by those of the critic's warm-up.
    pub fn optimizer_steps(&self) -> u64 {
        self.iterations.saturating_mul(self.steps_per_iteration())
    }

    /// Returns the optimizer steps of one iteration, unless `target_kl` stops them.
    pub fn steps_per_iteration(&self) -> u64 {
        self.epochs().saturating_mul(self.mini_batches) as u64
    }

    /// Returns the same options with everything that a preset or another option decides spelled out.
    #[must_use]
    pub fn resolved(&self, lr: f64) -> Self {
        Self {
            epochs: Some(self.epochs()),
            gamma: Some(self.gamma()),
            gae_lambda: Some(self.gae_lambda()),
            advantage: Some(self.advantage()),
            group_std: Some(self.group_std()),
            policy_loss: Some(self.policy_loss()),
            loss_normalization: Some(self.loss_normalization()),
            clip_range: Some(self.clip_range()),
            clip_range_high: Some(self.clip_range_high()),
            whiten_advantages: Some(self.whiten_advantages()),
            kl_coef: Some(self.kl_coef()),
            kl_estimator: Some(self.kl_estimator()),
            kl_in: Some(self.kl_in()),
            critic_lr: Some(self.critic_lr.unwrap_or(lr)),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests;
