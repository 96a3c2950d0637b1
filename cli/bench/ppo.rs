//! `rollforge bench ppo`: how long a whole iteration takes.

use super::arguments::CommonArguments;

/// Measure whole iterations of PPO: generation, scoring, training, refit
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
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
    #[command(flatten)]
    pub(in crate::cli) common: CommonArguments,
}
