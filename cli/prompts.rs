//! Prompts from the command line and from files, as token ids.

use std::{fs, path::Path};

use anyhow::{Context, bail};

use super::output::note;
use crate::{
    data::{self, Attributes, DataConfig, PromptSample, TextEncoder},
    model::{ChatOptions, Message, Model},
};

/// How a text becomes a prompt.
#[derive(Clone, Debug, Default)]
pub(super) struct Wording {
    /// As what a user says in the model's chat template, not as it is.
    pub(super) chat: bool,
    /// What it is told of the answer.
    pub(super) attributes: Option<Attributes>,
}

/// Returns a text's token ids.
pub(super) fn encode(model: &Model, text: &str, wording: &Wording) -> anyhow::Result<Vec<u32>> {
    let text = match &wording.attributes {
        Some(attributes) => attributes.before(text),
        None => text.to_owned(),
    };
    let tokenizer = model.tokenizer()?;
    if !wording.chat {
        return Ok(tokenizer.encode(&text, true)?);
    }
    let Some(template) = &model.chat_template else {
        bail!("{} has no chat template: leave out --chat", model.checkpoint.dir().display());
    };
    let message = Message { role: "user".into(), content: text };
    let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
    Ok(template.encode(tokenizer, &[message], &options)?.ids)
}

/// Reads a file of prompts: a text file has one per line, anything else is read as training data is.
pub(super) fn read(model: &Model, path: &Path, wording: &Wording) -> anyhow::Result<Vec<Vec<u32>>> {
    if path.extension().is_some_and(|extension| extension == "txt") {
        let text = read_text(path)?;
        let lines = text.lines().filter(|line| !line.is_empty());
        let prompts: Vec<_> =
            lines.map(|line| encode(model, line, wording)).collect::<Result<_, _>>()?;
        if prompts.is_empty() {
            bail!("{}: has no prompts", path.display());
        }
        return Ok(prompts);
    }
    let config = DataConfig {
        max_tokens: model.spec().max_positions,
        append_eos: false,
        shuffle: false,
        ..DataConfig::new(vec![path.to_owned()])
    };
    let template = model.chat_template.as_ref();
    let encoder = TextEncoder::new(&config, model.tokenizer()?, template, &model.generation)?;
    let encoder = encoder.with_attributes(wording.attributes.clone());
    let loaded = data::load_train::<PromptSample>(&config, &encoder)?;
    if loaded.samples.len() < loaded.report.rows {
        note(&loaded.report);
    }
    Ok(loaded.samples.iter().map(|sample| sample.tokens.ids().to_vec()).collect())
}

/// Reads a text file.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
