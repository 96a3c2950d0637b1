//! Options of the optimizer, the schedules and the algorithms, as they stand in a TOML file.
//!
//! Every field has the field's usual default, so that an empty section is a good one. Unknown keys are refused.
//! `validate` checks what serde cannot: ranges, and options that contradict each other. A 0 switches an option off where
//! its documentation says so.

mod correction;
mod device;
mod distill;
mod dpo;
mod freeze;
mod kto;
mod optimizer;
mod ppo;
mod preset;
mod regression;
mod reward_model;
mod schedule;
mod sft;
mod spin;
mod steerlm2;

pub use correction::{Apply, BoundRule, CorrectionOptions, RatioLevel};
pub use device::Device;
pub use distill::{DistillOptions, Divergence};
pub use dpo::{DpoOptions, PreferenceLoss};
pub use freeze::Freeze;
pub use kto::{KtoLoss, KtoOptions};
pub use optimizer::OptimizerConfig;
pub use ppo::{
    KlPlace, LogprobTemperature, OldLogprobs, PpoOptions, ScoreNormalization, ValueInit,
};
pub use preset::{AdvantageEstimator, PolicyLossKind, PpoPreset};
pub use regression::RegressionOptions;
pub use reward_model::RewardModelOptions;
pub use schedule::{ScheduleConfig, ScheduleKind};
pub use sft::SftOptions;
pub use spin::SpinOptions;
pub use steerlm2::SteerLm2Options;

/// An option that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}, got {got}")]
pub struct OptionError {
    /// The option, as it is spelled in its section.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
    /// What it was.
    pub got: String,
}

/// Returns an error unless `kept`.
fn ensure(
    kept: bool,
    field: &'static str,
    rule: &'static str,
    got: impl ToString,
) -> Result<(), OptionError> {
    if kept { Ok(()) } else { Err(OptionError { field, rule, got: got.to_string() }) }
}

/// Checks that a number is finite and at least 0.
fn not_negative(field: &'static str, value: f64) -> Result<(), OptionError> {
    ensure(value.is_finite() && value >= 0.0, field, "a number from 0 up", value)
}

/// Checks that a number is finite and above 0.
fn positive(field: &'static str, value: f64) -> Result<(), OptionError> {
    ensure(value.is_finite() && value > 0.0, field, "a number above 0", value)
}

/// Checks that a number is from 0 to 1, both included.
fn share(field: &'static str, value: f64) -> Result<(), OptionError> {
    ensure((0.0..=1.0).contains(&value), field, "from 0 to 1", value)
}

/// Checks that a count is at least 1.
fn at_least_one(field: &'static str, value: usize) -> Result<(), OptionError> {
    ensure(value >= 1, field, "at least 1", value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid() {
        OptimizerConfig::default().validate().unwrap();
        ScheduleConfig::default().validate().unwrap();
        SftOptions::default().validate().unwrap();
        SpinOptions::default().validate().unwrap();
        SteerLm2Options::default().validate().unwrap();
        RegressionOptions::default().validate().unwrap();
        DistillOptions::default().validate().unwrap();
        RewardModelOptions::default().validate().unwrap();
        DpoOptions::default().validate().unwrap();
        KtoOptions::default().validate().unwrap();
        PpoOptions::default().validate().unwrap();
    }

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(toml::from_str::<OptimizerConfig>("").unwrap(), OptimizerConfig::default());
        assert_eq!(toml::from_str::<ScheduleConfig>("").unwrap(), ScheduleConfig::default());
        assert_eq!(toml::from_str::<SftOptions>("").unwrap(), SftOptions::default());
        assert_eq!(toml::from_str::<SpinOptions>("").unwrap(), SpinOptions::default());
        assert_eq!(toml::from_str::<SteerLm2Options>("").unwrap(), SteerLm2Options::default());
        assert_eq!(toml::from_str::<DistillOptions>("").unwrap(), DistillOptions::default());
        assert_eq!(
            toml::from_str::<RewardModelOptions>("").unwrap(),
            RewardModelOptions::default()
        );
        assert_eq!(toml::from_str::<RegressionOptions>("").unwrap(), RegressionOptions::default());
        assert_eq!(toml::from_str::<DpoOptions>("").unwrap(), DpoOptions::default());
        assert_eq!(toml::from_str::<KtoOptions>("").unwrap(), KtoOptions::default());
        assert_eq!(toml::from_str::<PpoOptions>("").unwrap(), PpoOptions::default());
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = toml::from_str::<PpoOptions>("clip_rang = 0.2").unwrap_err();
        assert!(error.message().contains("clip_rang"), "{error}");
    }

    #[test]
    fn an_error_names_the_option_the_rule_and_what_it_got() {
        let options = SftOptions { batch_size: 0, ..SftOptions::default() };
        let error = options.validate().unwrap_err();
        assert_eq!(error.to_string(), "batch_size must be at least 1, got 0");
    }
}
