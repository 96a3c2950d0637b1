//! `rollforge score`: the log-probability of each token of a text.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{bail, ensure};
use clap::ValueEnum;
use serde::Serialize;

use super::{
    opening::OpeningArguments,
    output::print,
    prompts::{self, Wording},
    trainer,
};
use crate::model::{Model, ModelSpec};

/// Say how likely each token of a text is, given those before it
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) engine: OpeningArguments,
    /// A text; may be given several times
    #[arg(long, short, value_name = "TEXT")]
    text: Vec<String>,
    /// A text as token ids: 1,17,4
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    token_ids: Vec<u32>,
    /// A file of texts, one per line
    #[arg(long, short, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Which of the two computes
    #[arg(long, value_enum, default_value_t = By::Engine)]
    by: By,
    /// Print a JSON object per text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Engine,
    Trainer,
}

/// One line of `--json`.
#[derive(Serialize)]
struct Line<'a> {
    token_ids: &'a [u32],
    tokens: Vec<String>,
    /// Of each token but the first (nats).
    logprobs: &'a [f32],
    total: f64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let model = arguments.engine.model()?;
    let texts = texts(arguments, &model)?;
    let scores = match arguments.by {
        By::Engine => {
            let engine = arguments.engine.start()?;
            let score = |ids: &Vec<u32>| engine.blocking().score(ids.clone());
            texts.iter().map(score).collect::<Result<Vec<_>, _>>()?
        }
        By::Trainer => trainer::logprobs(&model, &arguments.engine, &texts)?,
    };
    for (ids, logprobs) in texts.iter().zip(&scores) {
        show(arguments, &model, ids, logprobs)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn texts(arguments: &Arguments, model: &Model) -> anyhow::Result<Vec<Vec<u32>>> {
    let mut lines = arguments.text.clone();
    if let Some(path) = &arguments.input {
        lines.extend(prompts::read_text(path)?.lines().map(str::to_owned));
    }
    let mut texts: Vec<Vec<u32>> = lines
        .iter()
        .map(|line| prompts::encode(model, line, &Wording::default()))
        .collect::<Result<_, _>>()?;
    if !arguments.token_ids.is_empty() {
        texts.push(arguments.token_ids.clone());
    }
    if texts.is_empty() {
        bail!("nothing to score: give --text, --token-ids or --input");
    }
    for ids in &texts {
        check(ids, model.spec())?;
    }
    Ok(texts)
}

fn check(ids: &[u32], spec: &ModelSpec) -> anyhow::Result<()> {
    let (length, most) = (ids.len(), spec.max_positions);
    ensure!(length >= 2, "a text must have at least 2 tokens to be scored, got {length}");
    ensure!(length <= most, "a text must have at most {most} tokens, got {length}");
    let vocabulary = spec.vocab_size;
    let unknown = ids.iter().find(|&&id| id as usize >= vocabulary);
    unknown.map_or(Ok(()), |id| bail!("token ids must be below {vocabulary}, got {id}"))
}

fn show(arguments: &Arguments, model: &Model, ids: &[u32], logprobs: &[f32]) -> anyhow::Result<()> {
    let name = |&id: &u32| {
        let token = model.tokenizer.as_ref().and_then(|tokenizer| tokenizer.id_to_token(id));
        token.unwrap_or_default()
    };
    let tokens: Vec<String> = ids.iter().map(name).collect();
    let total = logprobs.iter().map(|&logprob| f64::from(logprob)).sum();
    if arguments.json {
        let line = Line { token_ids: ids, tokens, logprobs, total };
        return Ok(print(serde_json::to_string(&line)?)?);
    }
    for ((id, token), logprob) in ids.iter().zip(&tokens).skip(1).zip(logprobs) {
        print(format_args!("{id:>7} {logprob:>10.4}  {token}"))?;
    }
    print(format_args!("  total {total:>10.4}"))?;
    Ok(())
}
