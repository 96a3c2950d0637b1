//! `rollforge engine verify`: does an engine compute what the model says.

use std::{path::PathBuf, process::ExitCode};

use comfy_table::{Table, presets};

use crate::{
    cli::{
        output::{note, print},
        prompts,
    },
    model::Model,
    run::{Verification, Verified, model_directory, verify},
};

/// Compare an engine with the embedded one on the same weights
///
/// Opens the engine, puts the model's weights in, continues prompts greedily, and compares the log-probability of each token
/// with the embedded engine's. Ends with status 1 where they differ by more than the threshold.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The engine directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// A Hugging Face model directory, or a run directory: then its latest checkpoint
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// A file of prompts: JSON Lines or Parquet with a column `prompt`, or text with a prompt per line (.txt). Default: a few
    /// prompts of random tokens
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Tokens that each prompt is continued by
    #[arg(long, default_value_t = 16, value_name = "N")]
    tokens: usize,
    /// Largest mean difference of log-probs (nats); the default suits bf16, f32 agrees to 1e-4
    #[arg(long, default_value_t = 0.05, value_name = "X")]
    threshold: f64,
    /// Verify an engine of the contract double
    #[arg(long)]
    double: bool,
    /// Threads of the embedded engine; 0 takes every core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(arguments.tokens >= 1, "--tokens must be at least 1, got 0");
    let prompts = match &arguments.prompts {
        Some(file) => {
            let model = Model::open(&model_directory(&arguments.model))?;
            prompts::read(&model, file, &prompts::Wording::default())?
        }
        None => Vec::new(),
    };
    let verified = verify(&Verification {
        engine_dir: arguments.dir.clone(),
        model: arguments.model.clone(),
        prompts,
        tokens: arguments.tokens,
        threshold: arguments.threshold,
        double: arguments.double,
        threads: arguments.threads,
    })?;
    if arguments.json {
        print(serde_json::to_string(&verified)?)?;
    } else {
        verified.notes.iter().for_each(note);
        print(table(&verified))?;
    }
    let Some(failure) = &verified.failure else { return Ok(ExitCode::SUCCESS) };
    anyhow::bail!("{failure}")
}

fn table(verified: &Verified) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["prompt", "prompt tokens", "tokens", "mean |dlogp|", "max |dlogp|"]);
    for (number, row) in verified.rows.iter().enumerate() {
        let (mean, max) = (row.agreement.mean, row.agreement.max);
        table.add_row([
            (number + 1).to_string(),
            row.prompt_tokens.to_string(),
            row.tokens.to_string(),
            format!("{mean:.2e}"),
            format!("{max:.2e}"),
        ]);
    }
    let tokens: usize = verified.rows.iter().map(|row| row.tokens).sum();
    let (mean, max) =
        (format!("{:.2e}", verified.total.mean), format!("{:.2e}", verified.total.max));
    table.add_row(["all", "", &tokens.to_string(), &mean, &max]);
    table
}
