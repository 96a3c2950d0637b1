//! The trainer's answers in a build without libtorch.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::{
    cli::{annotate, bench, demo, opening::OpeningArguments, serve_rm, teach},
    config::{
        DistillConfig, DpoConfig, EvalConfig, KtoConfig, PpoConfig, RegressionConfig,
        RewardModelConfig, SftConfig, SpinConfig, SteerLm2Config,
    },
    model::Model,
    run::{Launch, eval::EvalReport},
};

const NEEDED: &str = "needs a build with the feature `libtorch`";

/// Says what is missing.
pub(in crate::cli) fn sft(_: &SftConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge sft {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn reward_model(_: &RewardModelConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge rm {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn regression(_: &RegressionConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge regression {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn dpo(_: &DpoConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge dpo {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn kto(_: &KtoConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge kto {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn spin(_: &SpinConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge spin {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn steerlm2(_: &SteerLm2Config, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge steerlm2 {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn distill(_: &DistillConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge distill {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn ppo(_: &PpoConfig, _: Launch<'_>) -> Result<Vec<String>> {
    bail!("rollforge ppo {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn bench_train(_: &bench::train::Arguments) -> Result<ExitCode> {
    bail!("rollforge bench train {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn bench_ppo(_: &bench::ppo::Arguments) -> Result<ExitCode> {
    bail!("rollforge bench ppo {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn demo(_: &demo::Arguments) -> Result<ExitCode> {
    bail!("rollforge demo {NEEDED}; its data can be had with --data-only")
}

/// Says what is missing.
pub(in crate::cli) fn teach(_: &teach::Arguments) -> Result<ExitCode> {
    bail!("rollforge teach {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn annotate(_: &annotate::Arguments) -> Result<ExitCode> {
    bail!("rollforge annotate {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn serve_rm(_: &serve_rm::Arguments, _: Option<String>) -> Result<ExitCode> {
    bail!("rollforge serve-rm {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn eval(_: &EvalConfig, _: &mut dyn FnMut(&str)) -> Result<EvalReport> {
    bail!("rollforge eval {NEEDED}")
}

/// Says what is missing.
pub(in crate::cli) fn logprobs(
    _: &Model,
    _: &OpeningArguments,
    _: &[Vec<u32>],
) -> Result<Vec<Vec<f32>>> {
    bail!("--by trainer {NEEDED}")
}
