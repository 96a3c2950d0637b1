//! `rollforge engine inspect`: what an engine directory holds.

use std::{path::PathBuf, process::ExitCode};

use comfy_table::{Table, presets};

use crate::{
    cli::output::print,
    run::{Inspection, Refittable, inspect},
};

/// Names shown of a long list.
const SHOWN: usize = 6;

/// Show what an engine was built from and for, and which tensors a refit reaches
///
/// Reads config.json. Where this build's library can load the engine, its refittable tensors are held against those that
/// the weight map has for the model.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The engine directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Only read files: load nothing
    #[arg(long)]
    no_load: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let found = inspect(&arguments.dir, !arguments.no_load)?;
    if arguments.json {
        print(serde_json::to_string(&found)?)?;
    } else {
        print(table(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(found: &Inspection) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let spec = &found.spec;
    let version = if found.version.is_empty() { "not said" } else { &found.version };
    let rows = [
        ("TensorRT-LLM", version.to_owned()),
        ("architecture", found.architecture.clone()),
        ("dtype", found.dtype.to_string()),
        ("layers", spec.num_layers.to_string()),
        ("hidden size", spec.hidden_size.to_string()),
        ("feed-forward size", spec.intermediate_size.to_string()),
        ("heads", format!("{} of {}", spec.num_heads, spec.head_dim)),
        ("key and value heads", spec.num_kv_heads.to_string()),
        ("vocabulary", spec.vocab_size.to_string()),
        ("tensor parallel", found.tensor_parallel.to_string()),
        ("max input tokens", found.max_input_len.to_string()),
        ("max sequence tokens", found.max_seq_len.to_string()),
        ("max batch", found.max_batch_size.to_string()),
        ("max tokens per step", found.max_num_tokens.to_string()),
        (
            "takes new weights",
            if found.use_refit { "yes" } else { "no: built without use_refit" }.into(),
        ),
    ];
    for (name, value) in rows {
        table.add_row([name, &value]);
    }
    for (name, value) in found.plugins.as_object().into_iter().flatten() {
        table.add_row([format!("plugin {name}"), value.to_string()]);
    }
    for (name, bytes) in &found.files {
        table.add_row([name.clone(), format!("{bytes} bytes")]);
    }
    if let Some(reason) = &found.not_loaded {
        table.add_row(["refittable tensors", &format!("not looked at: {reason}")]);
    }
    for rank in &found.refittable {
        table.add_row([format!("rank {}", rank.rank), sentence(rank)]);
    }
    table
}

fn sentence(rank: &Refittable) -> String {
    let Refittable { tensors, mapped, missing, extra, .. } = rank;
    let mut said = format!("{tensors} refittable tensors, {mapped} of them in the weight map");
    for (what, names) in [("missing", missing), ("fixed or unknown", extra)] {
        if !names.is_empty() {
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
            said += &format!("; {} {what}: {}{more}", names.len(), shown.join(", "));
        }
    }
    said
}
