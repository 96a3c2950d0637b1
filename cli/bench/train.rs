//! `rollforge bench train`: how fast the trainer learns.

use super::{
    arguments::{Format, ModelArguments, TurnArguments},
    output::OutputArguments,
};

/// Measure how fast the trainer learns: forward, backward and AdamW
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    pub(in crate::cli) model: ModelArguments,
    /// Number format to compute in; weights and optimizer state are f32 in either
    #[arg(long, value_enum, default_value_t = Format::Bf16)]
    pub(in crate::cli) dtype: Format,
    /// Sequences of a step
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(in crate::cli) rows: usize,
    /// Tokens of each
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(in crate::cli) length: usize,
    /// Number of threads, each on a core; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(in crate::cli) threads: usize,
    #[command(flatten)]
    pub(in crate::cli) turns: TurnArguments,
    #[command(flatten)]
    pub(in crate::cli) output: OutputArguments,
}
