//! `rollforge bench ppo`: how long a whole iteration takes.

use super::{
    arguments::{Format, ModelArguments, TurnArguments},
    output::OutputArguments,
};

/// Measure whole iterations of PPO: generation, scoring, training, refit
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    pub(in crate::cli) model: ModelArguments,
    /// Number format to compute in; what learns is kept in f32
    #[arg(long, value_enum, default_value_t = Format::Bf16)]
    pub(in crate::cli) dtype: Format,
    /// Prompts of an iteration
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(in crate::cli) prompts: usize,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(in crate::cli) prompt: usize,
    /// Tokens of each completion
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(in crate::cli) new: usize,
    /// Passes over the rollouts of an iteration
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(in crate::cli) epochs: usize,
    /// Set a key of the run's configuration: queue.mode=async
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(in crate::cli) overrides: Vec<String>,
    /// Number of threads, each on a core; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(in crate::cli) threads: usize,
    #[command(flatten)]
    pub(in crate::cli) turns: TurnArguments,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}
