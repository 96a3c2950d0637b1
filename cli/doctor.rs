//! `rollforge doctor`: what this machine has and what it lacks.

use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};

use super::output::print;
use crate::run::machine::{Finding, examine};

/// Show what is found here, what is missing, and how to get it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let findings = examine();
    if arguments.json {
        print(serde_json::to_string(&findings)?)?;
    } else {
        print(table(&findings))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_width(100);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "what", "found", "what to do"]);
    for finding in findings {
        let sign = if finding.present { "yes" } else { "no" };
        table.add_row([sign, finding.what, &finding.found, &finding.advice]);
    }
    table
}
