//! `rollforge eval`: what a model is worth.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};

use super::{
    output::{note, print},
    trainer,
    training::folder_override,
};
use crate::{
    config::{self, EvalConfig, Measure},
    run::eval::{EvalReport, plot},
};

/// Measure a model: perplexity, accuracy on pairs, win rate, accuracy of answers, best of n
///
/// With a configuration, or with arguments alone: rollforge eval perplexity --model MODEL --data rows.jsonl
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// perplexity, pair_accuracy (reward model), win_rate, accuracy or best_of_n; the same as --set eval.measure=...
    #[arg(value_name = "MEASURE")]
    measure: Option<String>,
    /// The configuration, in TOML
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A model directory, or a run directory; the same as --set model.path=DIR
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The policy to compare with; the same as --set model.against=DIR
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Rows to measure on; the same as --set data.eval=FILE
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Completions of each prompt; the same as --set eval.samples_per_prompt=N
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// Set a key: reward.kind=exact_match; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Write the report as JSON; without a file, print it instead of a table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Draw the best-of-n curve as an SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the resolved configuration, and measure nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let config = arguments.config()?;
    if arguments.dry_run {
        print(config::to_toml(&config).trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    for path in [&arguments.json, &arguments.plot].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        ensure!(folder.is_dir(), "{}: there is no folder {}", path.display(), folder.display());
    }
    ensure!(
        arguments.plot.is_none() || config.eval.measure == Measure::BestOfN,
        "--plot: only best_of_n has a curve, not {}",
        config.eval.measure.name()
    );
    let report = trainer::eval(&config, &mut |next| note(format_args!("measuring: {next}")))?;
    if let (Some(path), Some(drawn)) = (&arguments.plot, plot(&report)) {
        fs::write(path, drawn).with_context(|| path.display().to_string())?;
    }
    match &arguments.json {
        Some(path) if path == Path::new("-") => print(serde_json::to_string(&report)?)?,
        Some(path) => {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            fs::write(path, text).with_context(|| path.display().to_string())?;
            show(&report)?;
        }
        None => show(&report)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn config(&self) -> Result<EvalConfig> {
        let mut overrides = self.overrides.clone();
        overrides.extend(self.measure.iter().map(|measure| format!("eval.measure={measure}")));
        let paths = [
            ("model.path", &self.model),
            ("model.against", &self.against),
            ("data.eval", &self.data),
        ];
        for (key, path) in paths {
            let given = path.as_ref().map(|path| folder_override(key, path)).transpose();
            overrides.extend(given.with_context(|| key.to_owned())?);
        }
        let samples = self.samples.map(|samples| format!("eval.samples_per_prompt={samples}"));
        overrides.extend(samples);
        Ok(match &self.config {
            Some(path) => config::load(path, &overrides)?,
            None => {
                let here = std::env::current_dir().context("the current directory")?;
                config::parse("arguments", String::new(), &here, &overrides)?
            }
        })
    }
}

fn show(report: &EvalReport) -> Result<()> {
    print(report.title())?;
    print(&report.data)?;
    print("")?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(share) = &report.share {
        let interval = format!(
            "{:.4}   95%: {:.4} to {:.4}, of {}",
            share.share, share.low, share.high, share.trials
        );
        table.add_row([report.measure.name().to_owned(), interval]);
    }
    for (name, value) in &report.values {
        table.add_row([(*name).to_owned(), format!("{value:.4}")]);
    }
    print(table)?;
    if !report.curve.is_empty() {
        print("")?;
        print(curve(report))?;
    }
    Ok(())
}

fn curve(report: &EvalReport) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["n", "reward of the best", "pass@n", "KL at most"]);
    for point in &report.curve {
        table.add_row([
            point.n.to_string(),
            format!("{:.4}", point.best),
            format!("{:.4}", point.pass),
            format!("{:.4}", point.kl_bound),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
