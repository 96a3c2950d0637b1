//! `rollforge config`: looks at a configuration without running it.

use std::{path::PathBuf, process::ExitCode};

use clap::{Subcommand, ValueEnum};

use super::output::print;
use crate::config::{
    Config, DistillConfig, DpoConfig, KtoConfig, PpoConfig, RegressionConfig, RewardModelConfig,
    SftConfig, SpinConfig, SteerLm2Config, load, to_toml,
};

/// Check a configuration, or show it with every default spelled out
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether a configuration can be used
    Check(Source),
    /// Print a configuration as TOML, every default spelled out
    Show(Source),
}

#[derive(Debug, clap::Args)]
struct Source {
    /// Which command the file is for
    command: Kind,
    /// The configuration
    file: PathBuf,
    /// Set a key: ppo.clip_range=0.1
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Sft,
    Rm,
    Regression,
    Dpo,
    Kto,
    Spin,
    #[value(name = "steerlm2")]
    SteerLm2,
    Distill,
    Ppo,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        Action::Check(source) => {
            resolved(source)?;
            print(format_args!("{}: ok", source.file.display()))?;
        }
        Action::Show(source) => print(resolved(source)?.trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn resolved(source: &Source) -> anyhow::Result<String> {
    match source.command {
        Kind::Sft => toml_of::<SftConfig>(source),
        Kind::Rm => toml_of::<RewardModelConfig>(source),
        Kind::Regression => toml_of::<RegressionConfig>(source),
        Kind::Dpo => toml_of::<DpoConfig>(source),
        Kind::Kto => toml_of::<KtoConfig>(source),
        Kind::Spin => toml_of::<SpinConfig>(source),
        Kind::SteerLm2 => toml_of::<SteerLm2Config>(source),
        Kind::Distill => toml_of::<DistillConfig>(source),
        Kind::Ppo => toml_of::<PpoConfig>(source),
    }
}

fn toml_of<T: Config>(source: &Source) -> anyhow::Result<String> {
    Ok(to_toml(&load::<T>(&source.file, &source.overrides)?))
}
