//! How tokens are weighted that another policy sampled than the one that learns from them.

use serde::{Deserialize, Serialize};

use super::{OptionError, ensure};

/// In which iterations the weights act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Apply {
    /// In those whose mismatch a gate answers with `correct`.
    OnMismatch,
    /// In every one: with recomputed old log-probs the decoupled objective of PPO.
    Always,
}

/// Of what the ratio `old / rollout` is taken that has to keep within the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// Of each token.
    #[default]
    Token,
    /// Of the whole completion: the product over its tokens.
    Sequence,
    /// Of the completion's average token: the geometric mean over its tokens.
    Geometric,
}

/// What becomes of a ratio outside the bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundRule {
    /// It is cut to the bound.
    #[default]
    Truncate,
    /// It becomes 0: the token, or the whole completion, has no part in the policy gradient.
    Mask,
}

/// How importance weights are taken and bounded; see [`crate::trainer::correction`].
///
/// | known as | `level` | `rule` |
/// |-|-|-|
/// | TIS, TRL's `token_truncate` | `token` | `truncate` |
/// | MIS, IcePop, TRL's `token_mask` | `token` | `mask` |
/// | TRL's `sequence_truncate` | `sequence` | `truncate` |
/// | TRL's `sequence_mask` | `sequence` | `mask` |
/// | seq-mask-TIS | `geometric` | `mask` |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorrectionOptions {
    /// In which iterations the weights act: `on_mismatch` or `always`. Default: `always` where generation overlaps
    /// training (and `ppo.old_logprobs` is `recompute`), else `on_mismatch`.
    pub apply: Option<Apply>,
    /// Of what the ratio is taken: `token`, `sequence` or `geometric`. Default `token`.
    pub level: RatioLevel,
    /// What becomes of a ratio outside the bounds: `truncate` or `mask`. Default `truncate`.
    pub rule: BoundRule,
    /// The lower bound, from 0 to 1. Default 0: none.
    pub low: f64,
    /// The upper bound, at least 1. Default 2.
    pub high: f64,
}

impl Default for CorrectionOptions {
    fn default() -> Self {
        Self {
            apply: None,
            level: RatioLevel::Token,
            rule: BoundRule::Truncate,
            low: 0.0,
            high: 2.0,
        }
    }
}

impl CorrectionOptions {
    /// Says whether the weights act in every iteration.
    pub fn is_always(&self) -> bool {
        self.apply == Some(Apply::Always)
    }

    /// Checks every range and every combination.
    ///
    /// # Errors
    /// Names the first option that breaks a rule.
    pub fn validate(&self) -> Result<(), OptionError> {
        // Between the bounds lies 1: policies that do not differ are not to be weighted.
        ensure((0.0..=1.0).contains(&self.low), "correction.low", "from 0 to 1", self.low)?;
        ensure(
            self.high >= 1.0 && self.high.is_finite(),
            "correction.high",
            "a number from 1 up",
            self.high,
        )?;
        ensure(
            self.level != RatioLevel::Geometric || self.rule == BoundRule::Mask,
            "correction.rule",
            "mask where correction.level is `geometric`",
            "truncate",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_broken_by(toml: &str) -> String {
        toml::from_str::<CorrectionOptions>(toml).unwrap().validate().unwrap_err().to_string()
    }

    #[test]
    fn an_empty_section_truncates_each_tokens_weight_at_2() {
        let options: CorrectionOptions = toml::from_str("").unwrap();
        assert_eq!(options, CorrectionOptions::default());
        options.validate().unwrap();
        assert!(!options.is_always());
    }

    #[test]
    fn bounds_that_leave_1_out_are_refused_by_name() {
        assert_eq!(rule_broken_by("low = 1.5"), "correction.low must be from 0 to 1, got 1.5");
        assert_eq!(rule_broken_by("low = nan"), "correction.low must be from 0 to 1, got NaN");
        assert_eq!(
            rule_broken_by("high = 0.5"),
            "correction.high must be a number from 1 up, got 0.5"
        );
        assert_eq!(
            rule_broken_by("high = inf"),
            "correction.high must be a number from 1 up, got inf"
        );
    }

    #[test]
    fn a_geometric_mean_only_drops() {
        assert_eq!(
            rule_broken_by("level = 'geometric'"),
            "correction.rule must be mask where correction.level is `geometric`, got truncate"
        );
    }
}
