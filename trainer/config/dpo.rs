//! Preference optimisation's options.

use serde::{Deserialize, Serialize};

use super::{OptionError, at_least_one, ensure, not_negative, positive};

/// What a pair costs; the equations are in [`crate::trainer::preference`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreferenceLoss {
    /// The logistic loss of the implicit rewards' difference (Rafailov et al., 2023).
    #[default]
    Dpo,
    /// The same for data of which a known share is labelled the wrong way round (Chowdhury et al., 2024).
    Robust,
    /// The squared distance of the gap from `1 / (2 beta)` (Azar et al., 2024).
    Ipo,
    /// The squared distance of the implicit rewards' difference from the known one (Sun et al., 2025).
    RpoSq,
    /// The KL from the policy's preference to the known one.
    RpoFwdKl,
    /// The KL from the known preference to the policy's.
    RpoBwdKl,
    /// The likelihood of the chosen completion, and the ratio of both odds (Hong et al., 2024). Has no reference.
    Orpo,
    /// The logistic loss of the mean log-probs' difference (Meng et al., 2024). Has no reference.
    Simpo,
}

impl PreferenceLoss {
    /// Says whether the loss compares the policy with a reference.
    pub fn has_reference(self) -> bool {
        !matches!(self, Self::Orpo | Self::Simpo)
    }

    /// Says whether the loss is a logistic one, which labels can be smoothed in and a margin be asked of.
    fn is_logistic(self) -> bool {
        matches!(self, Self::Dpo | Self::Robust | Self::Simpo)
    }
}

/// Options of preference optimisation without rollouts: DPO and its kin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoOptions {
    /// Passes over the data. Default 1.
    pub epochs: usize,
    /// Ends the run after so many optimizer steps. Default 0: when the epochs are over.
    pub max_steps: u64,
    /// Pairs of one optimizer step. Default 64.
    pub batch_size: usize,
    /// Tokens of one forward pass; a longer pair goes alone. Affects memory and speed, not the result. Default 8192.
    pub micro_batch_tokens: usize,
    /// What a pair costs. Default `dpo`.
    pub loss: PreferenceLoss,
    /// What a log-ratio is worth; with `orpo` the weight of the odds ratio, with `simpo` what a mean log-prob is worth
    /// (usual 2). The smaller, the farther the policy may move from its reference. Default 0.1.
    pub beta: f64,
    /// The share of the labels that are taken to be the wrong way round, below 1/2: of `dpo` (conservative DPO), `robust` and
    /// `simpo`. Default 0.
    pub label_smoothing: f64,
    /// Take the mean of a completion's log-probs rather than their sum, so that long ones count no more than short ones.
    /// `orpo` and `simpo` always do. Default false.
    pub average_logprobs: bool,
    /// Weight of the chosen completion's mean negative log-likelihood beside the loss. Default 0.
    pub sft_coef: f64,
    /// `simpo`: by how much the chosen reward is to lie above the rejected one. Default 0.5.
    pub gamma: f64,
    /// Ask the chosen reward to lie above the rejected one by the pair's `margin`, where it has one (Amini et al., 2024):
    /// of `dpo`, `robust` and `simpo`. Default false.
    pub use_margin: bool,
    /// `rpo_*`: what a pair's known rewards are multiplied by. Default 1.
    pub reward_scale: f64,
    /// `rpo_*`: the reward of a chosen completion whose row has none. Default 1.
    pub default_chosen_reward: f64,
    /// `rpo_*`: the reward of a rejected completion whose row has none. Default 0.
    pub default_rejected_reward: f64,
    /// Judge the held-out pairs every so many optimizer steps. Default 0: at the end only.
    pub eval_every: u64,
}

impl Default for DpoOptions {
    fn default() -> Self {
        Self {
            epochs: 1,
            max_steps: 0,
            batch_size: 64,
            micro_batch_tokens: 8192,
            loss: PreferenceLoss::default(),
            beta: 0.1,
            label_smoothing: 0.0,
            average_logprobs: false,
            sft_coef: 0.0,
            gamma: 0.5,
            use_margin: false,
            reward_scale: 1.0,
            default_chosen_reward: 1.0,
            default_rejected_reward: 0.0,
            eval_every: 0,
        }
    }
}

impl DpoOptions {
    /// Checks every range, and that no option is set which the loss would not look at.
    ///
    /// # Errors
    /// Names the first option out of its range.
    pub fn validate(&self) -> Result<(), OptionError> {
        at_least_one("epochs", self.epochs)?;
        at_least_one("batch_size", self.batch_size)?;
        at_least_one("micro_batch_tokens", self.micro_batch_tokens)?;
        positive("beta", self.beta)?;
        let smoothing = self.label_smoothing;
        ensure(
            (0.0..0.5).contains(&smoothing),
            "label_smoothing",
            "from 0 to below 0.5",
            smoothing,
        )?;
        let rule = "0 unless the loss is dpo, robust or simpo";
        ensure(smoothing == 0.0 || self.loss.is_logistic(), "label_smoothing", rule, smoothing)?;
        let rule = "false unless the loss is dpo, robust or simpo";
        ensure(!self.use_margin || self.loss.is_logistic(), "use_margin", rule, self.use_margin)?;
        not_negative("sft_coef", self.sft_coef)?;
        not_negative("gamma", self.gamma)?;
        positive("reward_scale", self.reward_scale)?;
        let rewards = [
            ("default_chosen_reward", self.default_chosen_reward),
            ("default_rejected_reward", self.default_rejected_reward),
        ];
        rewards
            .into_iter()
            .try_for_each(|(name, reward)| ensure(reward.is_finite(), name, "finite", reward))
    }

    /// Says whether a completion counts by the mean of its log-probs.
    pub fn averages(&self) -> bool {
        self.average_logprobs || !self.loss.has_reference()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_the_loss_would_not_look_at_is_refused() {
        let refused = |options: DpoOptions| options.validate().unwrap_err().to_string();
        let loss = PreferenceLoss::Ipo;
        let said = refused(DpoOptions { loss, label_smoothing: 0.1, ..Default::default() });
        assert_eq!(
            said,
            "label_smoothing must be 0 unless the loss is dpo, robust or simpo, got 0.1"
        );
        let said = refused(DpoOptions { loss, use_margin: true, ..Default::default() });
        assert_eq!(
            said,
            "use_margin must be false unless the loss is dpo, robust or simpo, got true"
        );
        let said = refused(DpoOptions { label_smoothing: 0.5, ..Default::default() });
        assert_eq!(said, "label_smoothing must be from 0 to below 0.5, got 0.5");
        let said = refused(DpoOptions { beta: 0.0, ..Default::default() });
        assert_eq!(said, "beta must be a number above 0, got 0");
    }
}
