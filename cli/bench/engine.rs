//! `rollforge bench engine`: how fast the embedded engine generates.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};

use crate::{
    cli::output::{note, print},
    rollout::Dtype,
    run::bench::{EngineBench, EngineTimes, Shape, engine},
};

/// Measure how fast the embedded engine generates, against what this machine can do at most
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A Hugging Face model directory, or a run directory. Default: a made-up model
    #[arg(long, value_name = "DIR", conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// What to make up, with random weights
    #[arg(long, value_enum, default_value_t = Name::Llama135M)]
    shape: Name,
    /// Number format to compute in
    #[arg(long, value_enum, default_value_t = Format::Bf16)]
    dtype: Format,
    /// Sequences that are decoded at once, one measurement for each
    #[arg(long = "batch", value_name = "N", value_delimiter = ',', default_values_t = [1, 8, 32, 64])]
    batches: Vec<usize>,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 32, value_name = "N")]
    prompt: usize,
    /// Tokens of each completion
    #[arg(long, default_value_t = 64, value_name = "N")]
    new: usize,
    /// Lengths of single prompts, one measurement for each
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [64, 512])]
    prefill: Vec<usize>,
    /// Number of threads; 0 takes every core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// How often each thing is measured, after a first time that does not count
    #[arg(long, default_value_t = 5, value_name = "N")]
    repeats: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    F32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    #[value(name = "5M")]
    Llama5M,
    #[value(name = "60M")]
    Llama60M,
    #[value(name = "135M")]
    Llama135M,
    #[value(name = "qwen2-0.5B")]
    Qwen2Half,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = EngineBench {
        model: arguments.model.clone(),
        shape: match arguments.shape {
            Name::Llama5M => Shape::Llama5M,
            Name::Llama60M => Shape::Llama60M,
            Name::Llama135M => Shape::Llama135M,
            Name::Qwen2Half => Shape::Qwen2Half,
        },
        dtype: match arguments.dtype {
            Format::F32 => Dtype::F32,
            Format::Bf16 => Dtype::Bf16,
        },
        batches: arguments.batches.clone(),
        prompt: arguments.prompt,
        new: arguments.new,
        prefill: arguments.prefill.clone(),
        threads: arguments.threads,
        repeats: arguments.repeats,
    };
    let times = engine(&options, |next| note(format_args!("measuring: {next}")))?;
    if arguments.json {
        print(serde_json::to_string(&times)?)?;
    } else {
        print(head(&times))?;
        print(table(&times))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn head(times: &EngineTimes) -> String {
    format!(
        "{}\n{} threads, kernels {}, {}, {:.0} million weights\n\
         limits measured here: {:.1} GB/s read, {:.0} GFLOP/s from registers\n",
        times.machine,
        times.threads,
        times.kernels,
        times.dtype,
        times.parameters as f64 / 1e6,
        times.read_gb_per_s,
        times.peak_gflops,
    )
}

fn table(times: &EngineTimes) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "median", "lowest", "highest", "limit", "share of it"]);
    for rate in &times.rates {
        let (low, high) = rate.values.spread();
        let number = |number: f64| format!("{number:.0}");
        table.add_row([
            rate.name.clone(),
            number(rate.values.median()),
            number(low),
            number(high),
            number(rate.limit),
            format!("{:.0}%", 100.0 * rate.share()),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
