//! `rollforge bench refit`: how long new weights take into an engine.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::{
    cli::{backend_name::BackendName, output::print},
    engine::RefitMode,
    run::bench::{RefitBench, RefitTimes, refit},
};

/// Measure how long new weights take into an engine
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What takes the weights
    #[arg(long, value_enum, default_value_t = BackendName::Native, value_name = "B")]
    backend: BackendName,
    /// A Hugging Face model directory, or a run directory. Default, with the embedded engine: a made-up Llama of 60
    /// million weights
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The TensorRT-LLM engine directory
    #[arg(long, value_name = "DIR")]
    engine: Option<PathBuf>,
    /// Measure the contract double; without --engine, one is made
    #[arg(long)]
    double: bool,
    /// How the weights get in: read where they are, as in a PPO run, or copied
    #[arg(long, value_enum, default_value_t = Mode::Alias)]
    mode: Mode,
    /// How often, after the first time
    #[arg(long, default_value_t = 10, value_name = "N")]
    repeats: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Alias,
    Copy,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    times: &'a RefitTimes,
    double: bool,
    median_seconds: f64,
    gigabytes_per_second: Option<f64>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let times = refit(&RefitBench {
        backend: arguments.backend.kind(),
        model: arguments.model.clone(),
        engine_dir: arguments.engine.clone(),
        double: arguments.double,
        mode: match arguments.mode {
            Mode::Alias => RefitMode::Alias,
            Mode::Copy => RefitMode::Copy,
        },
        repeats: arguments.repeats,
    })?;
    if arguments.json {
        let line = Line {
            times: &times,
            double: arguments.double,
            median_seconds: times.seconds.median(),
            gigabytes_per_second: times.gigabytes_per_second(),
        };
        print(serde_json::to_string(&line)?)?;
    } else {
        print(table(arguments, &times))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(arguments: &Arguments, times: &RefitTimes) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_width(100);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let backend = arguments.backend.to_possible_value();
    let backend = backend.map(|value| value.get_name().to_owned()).unwrap_or_default();
    let double = if arguments.double { " (the contract double: no measure of a GPU)" } else { "" };
    let (low, high) = times.seconds.spread();
    let count = times.seconds.count();
    let rate = times.gigabytes_per_second();
    let rows = [
        ("machine", times.machine.clone()),
        ("backend", format!("{backend}{double}")),
        ("mode", format!("{:?}", times.mode).to_lowercase()),
        ("weights", format!("{} bytes in {} tensors", times.weight_bytes, times.tensors)),
        ("copied", format!("{} bytes a refit", times.copied_bytes)),
        ("first refit", format!("{:.6} s", times.first_seconds)),
        (
            "refit",
            format!(
                "{:.6} s, the median of {count} ({low:.6} to {high:.6})",
                times.seconds.median()
            ),
        ),
        ("rate", rate.map_or("none: no byte moves".into(), |rate| format!("{rate:.2} GB/s"))),
    ];
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    for note in &times.notes {
        table.add_row(["engine", note]);
    }
    table
}
