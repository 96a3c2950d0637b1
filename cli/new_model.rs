//! `rollforge new-model`: a model from nothing.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;

use super::{output::print, prompts};
use crate::{
    config::{self, Config, Violation},
    model::{NewModelSpec, new_model},
};

/// Make a model with random weights, and a tokenizer learned from text
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The model's shape, in TOML; every key has a default
    #[arg(value_name = "SPEC")]
    spec: PathBuf,
    /// Text to learn the tokenizer from, a sample per line
    #[arg(long = "text", value_name = "FILE")]
    texts: Vec<PathBuf>,
    /// The Hugging Face model directory to write
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// Set a key: num_layers=2
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let spec: NewModelSpec = config::load(&arguments.spec, &arguments.overrides)?;
    if spec.tokenizer.is_none() && arguments.texts.is_empty() {
        bail!(
            "a tokenizer is learned from text: name files with --text, or a tokenizer in the spec"
        );
    }
    let mut texts = Vec::new();
    for path in &arguments.texts {
        texts.extend(prompts::read_text(path)?.lines().map(str::to_owned));
    }
    let created = new_model(&spec, texts.into_iter(), &arguments.output)?;
    let (output, vocabulary) = (arguments.output.display(), created.spec.vocab_size);
    print(format_args!("{output}: {} weights, {vocabulary} tokens", created.parameters))?;
    if let Some(note) = created.note() {
        print(note)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Read by the same rules as every configuration; [`new_model`] checks the values.
impl Config for NewModelSpec {
    fn validate(&self) -> Result<(), Violation> {
        Ok(())
    }

    fn resolve(&mut self, folder: &Path) {
        if let Some(tokenizer) = &mut self.tokenizer {
            *tokenizer = folder.join(&*tokenizer);
        }
    }

    fn arithmetic(&self) -> Vec<String> {
        Vec::new()
    }
}
