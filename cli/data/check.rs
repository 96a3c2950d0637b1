//! `rollforge data check`: what is in a data set.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};

use super::ReadingArguments;
use crate::{
    cli::output::{note, print},
    data::{
        Check, CheckOptions, DataConfig, FileCheck, OverLong, Overlap, Refused, Task, TextEncoder,
        check,
    },
    model::Model,
    run::model_directory,
};

/// Say what is in data files: schema, unusable rows, lengths, duplicates, what files share
///
/// Give the files to train on first and those to measure on after them: what these have in common is named. With --model
/// rows are encoded as the command's loader does. Exits with status 1 where a file has nothing left to use.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// JSON Lines or Parquet
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A model directory, or a run directory: its tokenizer and chat template encode the rows
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// The command that the data are for; default what the schema is most likely for
    #[arg(long = "for", value_enum, value_name = "COMMAND")]
    task: Option<Command>,
    #[command(flatten)]
    reading: ReadingArguments,
    /// As data.max_tokens
    #[arg(long, default_value_t = 1024)]
    max_tokens: usize,
    /// As data.over_long = "truncate": longer rows are cut, not left out
    #[arg(long)]
    truncate: bool,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Command {
    Sft,
    Rm,
    Regression,
    Dpo,
    Kto,
    Ppo,
}

impl From<Command> for Task {
    fn from(command: Command) -> Self {
        match command {
            Command::Sft => Self::Sft,
            Command::Rm => Self::Rm,
            Command::Regression => Self::Regression,
            Command::Dpo => Self::Dpo,
            Command::Kto => Self::Kto,
            Command::Ppo => Self::Ppo,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let model = arguments.model.as_ref().map(|path| Model::open(&model_directory(path)));
    let model = model.transpose()?;
    let encoder = model.as_ref().map(|model| encoder(arguments, model)).transpose()?;
    let options = CheckOptions {
        reading: arguments.reading.reading(),
        task: arguments.task.map(Task::from),
        encoder,
    };
    let found = check(&arguments.files, &options)?;
    if arguments.json {
        print(serde_json::to_string(&found)?)?;
    } else {
        show(&found)?;
    }
    let empty: Vec<&FileCheck> = found.files.iter().filter(|file| file.left() == 0).collect();
    for file in &empty {
        let why = match &file.first_broken {
            Some(broken) => format!("a run would refuse the file: {broken}"),
            None => "no row is left to use".into(),
        };
        note(format_args!("error: {}: {why}", file.file.display()));
    }
    Ok(if empty.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn encoder<'a>(arguments: &Arguments, model: &'a Model) -> anyhow::Result<TextEncoder<'a>> {
    let config = DataConfig {
        max_tokens: arguments.max_tokens.min(model.spec().max_positions),
        over_long: if arguments.truncate { OverLong::Truncate } else { OverLong::Drop },
        ..DataConfig::new(Vec::new())
    };
    let template = model.chat_template.as_ref();
    Ok(TextEncoder::new(&config, model.tokenizer()?, template, &model.generation)?)
}

fn show(found: &Check) -> anyhow::Result<()> {
    for file in &found.files {
        print(file.file.display())?;
        print(facts(file))?;
        if !file.lengths.is_empty() {
            print(lengths(file))?;
        }
        print("")?;
    }
    for Overlap { file, earlier, examples, prompts } in &found.overlaps {
        print(format_args!(
            "{} shares {examples} examples and {prompts} prompts with {}",
            file.display(),
            earlier.display()
        ))?;
    }
    Ok(())
}

fn facts(file: &FileCheck) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let schema = match (file.task, file.is_direct) {
        (None, _) => format!("{}, which no command trains on as it is", file.schema),
        (Some(task), true) => format!("{}, read by {task} as it is", file.schema),
        (Some(task), false) => {
            format!("{}; for {task}: rollforge data convert --to {}", file.schema, task.form())
        }
    };
    table.add_row(["schema".to_owned(), schema]);
    table.add_row(["rows".to_owned(), format!("{}, of which {} usable", file.rows, file.usable)]);
    for Refused { reason, rows, first } in &file.refused {
        let more = if *rows > first.len() { ", ..." } else { "" };
        table.add_row([
            "not usable".to_owned(),
            format!("{rows}: {reason} ({}{more})", first.join(", ")),
        ]);
    }
    if let Some(first) = &file.first_broken {
        table.add_row(["broken lines".to_owned(), format!("{}: {first}", file.broken)]);
    }
    table.add_row(["blank".to_owned(), format!("{} with an empty text in it", file.blank)]);
    table.add_row([
        "duplicates".to_owned(),
        format!("{} examples, {} prompts", file.duplicates, file.duplicate_prompts),
    ]);
    if let Some(max_tokens) = file.max_tokens {
        table.add_row(["cut".to_owned(), format!("{} to {max_tokens} tokens", file.cut)]);
    }
    table
}

fn lengths(file: &FileCheck) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["tokens", "mean", "p50", "p95", "max"]);
    for length in &file.lengths {
        table.add_row([
            length.what.to_owned(),
            format!("{:.1}", length.mean),
            length.p50.to_string(),
            length.p95.to_string(),
            length.max.to_string(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
