//! Where a report goes: the terminal, a file, a picture.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};

use crate::{
    cli::output::{note, print},
    run::bench::{Report, Row, number, plot},
};

/// Where to.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct OutputArguments {
    /// Write the report as JSON; without a file, print it instead of a table
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    json: Option<PathBuf>,
    /// Draw it as an SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl OutputArguments {
    /// Measures, telling what comes next, and writes down what came of it.
    ///
    /// # Errors
    /// Before anything is measured, where a file has no folder; those of `measure`; and when a file cannot be written.
    pub(in crate::cli) fn report(
        &self,
        measure: impl FnOnce(&mut dyn FnMut(&str)) -> Result<Report>,
    ) -> Result<ExitCode> {
        for path in [&self.json, &self.plot].into_iter().flatten() {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = folder.unwrap_or(Path::new("."));
            ensure!(folder.is_dir(), "{}: there is no folder {}", path.display(), folder.display());
        }
        let mut report = measure(&mut |next| note(format_args!("measuring: {next}")))?;
        report.command = without_files(std::env::args().skip(1));
        if let Some(path) = &self.plot {
            fs::write(path, plot(&report)).with_context(|| path.display().to_string())?;
        }
        match &self.json {
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
}

/// Leaves out where the report went: it is the same wherever it lies.
fn without_files(arguments: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--json" || argument == "--plot" {
            arguments.next_if(|value| !value.starts_with("--"));
        } else {
            kept.push(argument);
        }
    }
    kept
}

fn show(report: &Report) -> Result<()> {
    for line in report.circumstances() {
        print(line)?;
    }
    for (name, value) in &report.settings {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        print(format_args!("{name}: {value}"))?;
    }
    print("")?;
    print(table(report))?;
    for line in report.findings() {
        print(line)?;
    }
    Ok(())
}

fn table(report: &Report) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "median",
        "lowest",
        "highest",
        "limit",
        "share of it",
        "times better than",
    ]);
    for row in &report.rows {
        table.add_row(cells(row, report));
    }
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(row: &Row, report: &Report) -> [String; 7] {
    let (low, high) = row.values.spread();
    let peers = report.ratios_of(row).map(|ratio| {
        format!("{} ({}): {:.2}", ratio.name(), number(ratio.median), ratio.times_better)
    });
    [
        row.name.clone(),
        number(row.values.median()),
        number(low),
        number(high),
        row.limit.map(number).unwrap_or_default(),
        row.share().map(|share| format!("{:.0}%", 100.0 * share)).unwrap_or_default(),
        peers.collect::<Vec<_>>().join("\n"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_what_was_measured_not_where_it_went() {
        let given =
            ["bench", "queue", "--json", "--items", "9", "--plot", "/x/y.svg", "--json", "-"];
        let kept = without_files(given.into_iter().map(str::to_owned));
        assert_eq!(kept, ["bench", "queue", "--items", "9"]);
    }
}
