//! `rollforge recipes`: configurations to start from.

use std::{fs::OpenOptions, io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Subcommand;
use comfy_table::{Table, presets};

use super::output::print;
use crate::config::{RECIPES, Recipe};

/// List configurations to start from, one for each algorithm; show or write one
///
/// Each of them is run by a test. The paths in them are examples: put yours in their place, or override them with --set.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a recipe
    Show {
        /// Its name
        name: String,
        /// With every default spelled out
        #[arg(long)]
        resolved: bool,
    },
    /// Write a recipe into a file that is not there yet
    Write {
        /// Its name
        name: String,
        /// The file
        file: PathBuf,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.action {
        None => print(list())?,
        Some(Action::Show { name, resolved: false }) => print(Recipe::find(name)?.text.trim_end())?,
        Some(Action::Show { name, resolved: true }) => {
            print(Recipe::find(name)?.resolved(&[])?.trim_end())?;
        }
        Some(Action::Write { name, file }) => {
            let recipe = Recipe::find(name)?;
            let cannot = || format!("cannot write {}", file.display());
            let mut opened =
                OpenOptions::new().write(true).create_new(true).open(file).with_context(cannot)?;
            opened.write_all(recipe.text.as_bytes()).with_context(cannot)?;
            let command = recipe.command.name();
            print(format_args!("rollforge {command} --config {}", file.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["recipe", "command", "what it does"]);
    for recipe in RECIPES {
        table.add_row([recipe.name, recipe.command.name(), recipe.summary()]);
    }
    table
}
