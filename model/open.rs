//! A model directory with everything in it.

use std::path::Path;

use super::{
    ChatTemplate, Checkpoint, Error, GenerationConfig, ModelSpec, Tokenizer, error::Result,
};

/// An opened model directory.
#[derive(Debug)]
pub struct Model {
    /// Shape and weights.
    pub checkpoint: Checkpoint,
    /// Text into ids and back; `None` without a `tokenizer.json`.
    pub tokenizer: Option<Tokenizer>,
    /// Conversations into text; `None` where the model has no template.
    pub chat_template: Option<ChatTemplate>,
    /// EOS ids and sampling defaults.
    pub generation: GenerationConfig,
}

impl Model {
    /// Opens a directory and checks that its parts belong together.
    ///
    /// # Errors
    /// One line that names the file: see [`Checkpoint::open`]; also a tokenizer or an EOS id of another model.
    pub fn open(dir: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(dir)?;
        let tokenizer = match dir.join("tokenizer.json").exists() {
            true => Some(Tokenizer::open(dir)?),
            false => None,
        };
        if let Some(tokenizer) = &tokenizer {
            tokenizer
                .check(checkpoint.spec())
                .map_err(|error| Error::file(dir, error.to_string()))?;
        }
        let special = tokenizer.as_ref().map(|tokenizer| tokenizer.special().clone());
        let chat_template = ChatTemplate::open(dir, &special.unwrap_or_default())?;
        let generation = GenerationConfig::open(dir)?;
        let vocab_size = checkpoint.spec().vocab_size;
        if let Some(id) = generation.eos_token_ids.iter().find(|id| **id as usize >= vocab_size) {
            let problem = format!("eos_token_id {id} is beyond the vocab_size of {vocab_size}");
            return Err(Error::file(dir, problem));
        }
        Ok(Self { checkpoint, tokenizer, chat_template, generation })
    }

    /// Returns the model's shape.
    pub fn spec(&self) -> &ModelSpec {
        self.checkpoint.spec()
    }

    /// Returns the tokenizer.
    ///
    /// # Errors
    /// When the directory has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let path = || self.checkpoint.dir().join("tokenizer.json");
        self.tokenizer.as_ref().ok_or_else(|| Error::file(&path(), "is missing"))
    }
}
