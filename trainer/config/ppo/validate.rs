//! Which values PPO's options may have, and which of them go together.

use super::{
    super::{
        AdvantageEstimator, OptionError, PolicyLossKind, at_least_one, ensure, not_negative,
        positive, share,
    },
    KlPlace, OldLogprobs, PpoOptions,
};
use crate::trainer::{batch::Normalization, kl::KlEstimator};

/// The most rollouts of one iteration: slots for all of them are made before the first is sampled.
const MOST_ROLLOUTS: usize = 1 << 20;

impl PpoOptions {
    /// Checks every range and every combination.
    ///
    /// # Errors
    /// Names the first option that breaks a rule.
    pub fn validate(&self) -> Result<(), OptionError> {
        self.validate_batches()?;
        self.validate_policy()?;
        self.validate_values()?;
        self.validate_advantage()?;
        self.validate_kl()?;
        self.validate_correction()?;
        not_negative("missing_eos_penalty", self.missing_eos_penalty)?;
        not_negative("reward_clip", self.reward_clip)
    }

    fn validate_batches(&self) -> Result<(), OptionError> {
        ensure(self.iterations >= 1, "iterations", "at least 1", self.iterations)?;
        at_least_one("prompts_per_iteration", self.prompts_per_iteration)?;
        at_least_one("samples_per_prompt", self.samples_per_prompt)?;
        at_least_one("epochs", self.epochs())?;
        ensure(
            self.rollout_batch() <= MOST_ROLLOUTS,
            "prompts_per_iteration",
            "at most 1048576 / samples_per_prompt",
            self.prompts_per_iteration,
        )?;
        at_least_one("mini_batches", self.mini_batches)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        ensure(
            self.mini_batches <= self.rollout_batch(),
            "mini_batches",
            "at most prompts_per_iteration x samples_per_prompt",
            self.mini_batches,
        )?;
        not_negative("eval_temperature", self.eval_temperature.into())
    }

    fn validate_policy(&self) -> Result<(), OptionError> {
        let below_one = self.clip_range() > 0.0 && self.clip_range() < 1.0;
        ensure(below_one, "clip_range", "above 0 and below 1", self.clip_range())?;
        positive("clip_range_high", self.clip_range_high())?;
        ensure(
            self.dual_clip == 0.0 || (self.dual_clip > 1.0 && self.dual_clip.is_finite()),
            "dual_clip",
            "above 1, or 0 for off",
            self.dual_clip,
        )?;
        ensure(
            self.dual_clip == 0.0 || self.policy_loss().is_surrogate(),
            "dual_clip",
            "0 unless policy_loss is `ppo` or `gspo`",
            self.dual_clip,
        )?;
        positive("max_log_ratio", self.max_log_ratio)?;
        not_negative("entropy_coef", self.entropy_coef)?;
        at_least_one("loss_length", self.loss_length.unwrap_or(1))?;
        not_negative("target_kl", self.target_kl)
    }

    fn validate_correction(&self) -> Result<(), OptionError> {
        self.correction.validate()?;
        // The weights would be 1, each of them.
        ensure(
            self.old_logprobs == OldLogprobs::Recompute || !self.correction.is_always(),
            "correction.apply",
            "on_mismatch where old_logprobs is `rollout`",
            "always",
        )
    }

    fn validate_advantage(&self) -> Result<(), OptionError> {
        let alone = !self.advantage().compares_groups();
        ensure(
            alone || self.samples_per_prompt >= 2,
            "samples_per_prompt",
            "at least 2 where advantage compares a prompt's completions",
            self.samples_per_prompt,
        )?;
        // A completion is compared with others as a whole.
        ensure(
            alone || self.gamma() == 1.0,
            "gamma",
            "1 where advantage compares a prompt's completions",
            self.gamma(),
        )?;
        ensure(
            alone || !self.whiten_rewards,
            "whiten_rewards",
            "false where advantage compares a prompt's completions",
            self.whiten_rewards,
        )?;
        ensure(
            !alone || !self.filter_groups,
            "filter_groups",
            "false where advantage does not compare a prompt's completions",
            self.filter_groups,
        )?;
        ensure(
            self.filter_groups || self.max_refills == 0,
            "max_refills",
            "0 unless filter_groups is true",
            self.max_refills,
        )?;
        ensure(
            self.has_critic() || self.critic_warmup_iterations == 0,
            "critic_warmup_iterations",
            "0 unless advantage is `gae`, for there is no critic",
            self.critic_warmup_iterations,
        )?;
        self.validate_selection()
    }

    /// Checks what estimators ask for that take only some completions.
    fn validate_selection(&self) -> Result<(), OptionError> {
        at_least_one("best_of", self.best_of)?;
        ensure(
            self.best_of <= self.samples_per_prompt,
            "best_of",
            "at most samples_per_prompt",
            self.best_of,
        )?;
        positive("dpo_beta", self.dpo_beta)?;
        ensure(
            !self.advantage().selects() || self.policy_loss() == PolicyLossKind::Reinforce,
            "policy_loss",
            "reinforce where advantage is `best_of` or `online_dpo`",
            format!("{:?}", self.policy_loss()).to_lowercase(),
        )?;
        let pairs = self.advantage() == AdvantageEstimator::OnlineDpo;
        let whole = self.loss_normalization() == Normalization::SeqMeanTokenSum;
        ensure(
            !pairs || whole,
            "loss_normalization",
            "seq-mean-token-sum where advantage is `online_dpo`",
            "another one",
        )?;
        // The derivative is that at the weights which sampled: after a step it would be another.
        let rule = "1 where advantage is `online_dpo`";
        ensure(!pairs || self.epochs() == 1, "epochs", rule, self.epochs())?;
        ensure(!pairs || self.mini_batches == 1, "mini_batches", rule, self.mini_batches)
    }

    fn validate_values(&self) -> Result<(), OptionError> {
        not_negative("critic_lr", self.critic_lr.unwrap_or(0.0))?;
        not_negative("value_coef", self.value_coef)?;
        not_negative("value_clip_range", self.value_clip_range)?;
        share("gamma", self.gamma())?;
        share("gae_lambda", self.gae_lambda())?;
        ensure(
            self.critic_warmup_iterations < self.iterations,
            "critic_warmup_iterations",
            "below iterations",
            self.critic_warmup_iterations,
        )
    }

    fn validate_kl(&self) -> Result<(), OptionError> {
        not_negative("kl_coef", self.kl_coef())?;
        not_negative("kl_target", self.kl_target)?;
        positive("kl_horizon", self.kl_horizon)?;
        ensure(
            self.kl_target == 0.0 || self.kl_coef() > 0.0,
            "kl_coef",
            "above 0 where kl_target is given",
            self.kl_coef(),
        )?;
        // Further from its target, an iteration would turn the coefficient's sign.
        ensure(
            self.kl_target == 0.0 || self.kl_horizon >= self.rollout_batch() as f64,
            "kl_horizon",
            "at least prompts_per_iteration x samples_per_prompt where kl_target is given",
            self.kl_horizon,
        )?;
        ensure(
            self.kl_in() == KlPlace::Reward || self.kl_estimator() != KlEstimator::K1,
            "kl_estimator",
            "abs, k2 or k3 where kl_in is `loss`",
            "k1",
        )
    }
}
