//! `rollforge plan`: what a run will take in memory.

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::output::print;
use crate::{
    config::{
        ByteSize, Config, DistillConfig, DpoConfig, KtoConfig, PpoConfig, RegressionConfig,
        RewardModelConfig, SftConfig, SteerLm2Config, load,
    },
    run::plan::{Advice, Facts, Ledger, MemoryPlan, Part, Phase, Planned, advise, available},
};

/// Say what a run will take in memory, whether that fits, and what to change
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration of an `sft`, `rm`, `regression`, `dpo`, `kto`, `steerlm2`, `distill` or `ppo`
    config: PathBuf,
    /// Which of them it is for, where its sections do not say
    #[arg(long, value_enum)]
    stage: Option<Stage>,
    /// Set a key: ppo.micro_batch_tokens=2048
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// What it is to fit into: 16GiB; may be given several times. Default: what this machine has free
    #[arg(long, value_name = "SIZE")]
    device_memory: Vec<ByteSize>,
    /// Print one JSON object, in bytes
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    Sft,
    Rm,
    Regression,
    Dpo,
    Kto,
    #[value(name = "steerlm2")]
    SteerLm2,
    Distill,
    Ppo,
}

/// A plan held against a size.
#[derive(Serialize)]
struct Fit {
    size: u64,
    needed: u64,
    fits: bool,
    /// What would make it fit.
    advice: Vec<Advice>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a MemoryPlan,
    peak: u64,
    needed: u64,
    device_needed: u64,
    sizes: &'a [Fit],
    notes: &'a [String],
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match stage(arguments)? {
        Stage::Sft => plan::<SftConfig>(arguments),
        Stage::Rm => plan::<RewardModelConfig>(arguments),
        Stage::Regression => plan::<RegressionConfig>(arguments),
        Stage::Dpo => plan::<DpoConfig>(arguments),
        Stage::Kto => plan::<KtoConfig>(arguments),
        Stage::SteerLm2 => plan::<SteerLm2Config>(arguments),
        Stage::Distill => plan::<DistillConfig>(arguments),
        Stage::Ppo => plan::<PpoConfig>(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Tells the stage by a section that only its configuration has.
fn stage(arguments: &Arguments) -> anyhow::Result<Stage> {
    if let Some(stage) = arguments.stage {
        return Ok(stage);
    }
    let text = std::fs::read_to_string(&arguments.config).unwrap_or_default();
    // What cannot be read is refused where it is loaded.
    let keys: toml::Table = text.parse().unwrap_or_default();
    let told = [
        ("reward", Stage::Ppo),
        ("reward_model", Stage::Rm),
        ("regression", Stage::Regression),
        ("dpo", Stage::Dpo),
        ("kto", Stage::Kto),
        ("steerlm2", Stage::SteerLm2),
        ("distill", Stage::Distill),
        ("sft", Stage::Sft),
    ];
    match told.iter().find(|(key, _)| keys.contains_key(*key)) {
        Some((_, stage)) => Ok(*stage),
        None if keys.is_empty() => Ok(Stage::Sft),
        None => bail!(
            "{}: has none of [sft], [reward_model], [regression], [dpo], [kto], [steerlm2], [distill] and [reward], which tell what it is for; name it with --stage",
            arguments.config.display()
        ),
    }
}

fn plan<C: Config + Planned>(arguments: &Arguments) -> anyhow::Result<()> {
    let config: C = load(&arguments.config, &arguments.overrides)?;
    let (facts, note) = Facts::of(&config)?;
    let plan = config.plan(&facts);
    let needed = if plan.is_on_gpu() { MemoryPlan::device_needed } else { MemoryPlan::needed };
    let fit = |size: u64| {
        let fits = needed(&plan) <= size;
        let advice = if fits { Vec::new() } else { advise(&config, &facts, size, needed) };
        Fit { size, needed: needed(&plan), fits, advice }
    };
    let sizes: Vec<Fit> = sizes(arguments, &plan).into_iter().map(fit).collect();
    let mut notes: Vec<String> = note.into_iter().collect();
    if plan.is_on_gpu() {
        notes.push("bytes on the GPU are computed, and have not been measured on one".into());
    }
    if arguments.json {
        let (peak, needed, device_needed) = (plan.peak(), plan.needed(), plan.device_needed());
        let report =
            Report { plan: &plan, peak, needed, device_needed, sizes: &sizes, notes: &notes };
        return Ok(print(serde_json::to_string(&report)?)?);
    }
    show(&plan, &sizes, &notes)
}

/// Returns the sizes that were asked for; by default what this machine has free, where the trainer computes on it.
fn sizes(arguments: &Arguments, plan: &MemoryPlan) -> Vec<u64> {
    if !arguments.device_memory.is_empty() {
        return arguments.device_memory.iter().map(|size| size.0).collect();
    }
    if plan.is_on_gpu() { Vec::new() } else { available().into_iter().collect() }
}

fn show(plan: &MemoryPlan, sizes: &[Fit], notes: &[String]) -> anyhow::Result<()> {
    print(table(&plan.phases, |phase| &phase.host))?;
    if plan.is_on_gpu() {
        print(format_args!("\non {}:", plan.device))?;
        print(table(&plan.phases, |phase| &phase.device))?;
    }
    let [tokens, grid, rows] = plan.micro_batch;
    print(format_args!(
        "\nlargest micro-batch: {tokens} tokens ({grid} with padding), {rows} rows of the head"
    ))?;
    print(format_args!(
        "peak: {} resident, {} without mapped files",
        ByteSize(plan.peak()),
        ByteSize(plan.needed())
    ))?;
    for note in notes {
        print(format_args!("note: {note}"))?;
    }
    for fit in sizes {
        let verdict = if fit.fits { "fits" } else { "does not fit" };
        print(format_args!("{}: {verdict}", ByteSize(fit.size)))?;
        for line in advice(fit) {
            print(format_args!("  {line}"))?;
        }
    }
    Ok(())
}

fn advice(fit: &Fit) -> Vec<String> {
    if !fit.fits && fit.advice.is_empty() {
        return vec!["no option makes it smaller".into()];
    }
    let line = |advice: &Advice| {
        let (set, needed) = (advice.set.join(", "), ByteSize(advice.needed));
        if advice.fits {
            format!("fits with {set}: {needed}")
        } else {
            format!("does not even with {set}: {needed}")
        }
    };
    fit.advice.iter().map(line).collect()
}

/// Sets the parts that anything is held for below each other, and the phases side by side.
fn table(phases: &[Phase], ledger: impl Fn(&Phase) -> &Ledger) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_width(120);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let names = phases.iter().map(|phase| phase.name);
    table.set_header(std::iter::once("").chain(names));
    let row = |name: &str, bytes: &dyn Fn(&Ledger) -> u64| {
        let cell = |phase: &Phase| match bytes(ledger(phase)) {
            0 => "-".to_owned(),
            bytes => ByteSize(bytes).to_string(),
        };
        std::iter::once(name.to_owned()).chain(phases.iter().map(cell)).collect::<Vec<_>>()
    };
    for part in Part::ALL {
        if phases.iter().any(|phase| ledger(phase).get(part) > 0) {
            table.add_row(row(part.name(), &|ledger| ledger.get(part)));
        }
    }
    table.add_row(row("in all", &Ledger::total));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
