//! `rollforge bench train`: how fast the trainer learns.

use super::arguments::CommonArguments;

/// Measure how fast the trainer learns: forward, backward and AdamW
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Sequences of a step
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(in crate::cli) rows: usize,
    /// Tokens of each
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(in crate::cli) length: usize,
    #[command(flatten)]
    pub(in crate::cli) common: CommonArguments,
}
