//! Text and conversations into token ids, with the tokens to train on.

use super::{Attributes, DataConfig, Error, OverLong, chat, row::Content};
use crate::model::{ChatTemplate, GenerationConfig, Tokenizer};

/// Turns the texts of a row into tokens, under the rules of a [`DataConfig`].
///
/// **The boundary.** The tokens of a prompt are those of its text alone, as they are when a completion is generated
/// after it. Those of the completion are the rest of the tokens of both texts together, where these begin with the
/// prompt's; where they do not (a token would span the boundary), they are those of the completion alone.
///
/// **The ends.** Plain text starts with BOS where the tokenizer starts texts with it; text from a chat template has it
/// already. A completion ends with EOS: where its text does not end with an EOS token, one is added (`append_eos`).
/// White space after the last turn of a conversation is left out, for nothing follows EOS when text is generated.
#[derive(Clone, Debug)]
pub struct TextEncoder<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    bos: Option<u32>,
    /// Every id that ends a text; the first is the one to add.
    eos: Vec<u32>,
    append_eos: bool,
    completion_only: bool,
    max_tokens: usize,
    over_long: OverLong,
    /// What prompts are told of the answer.
    attributes: Option<Attributes>,
}

/// A piece of a text, and whether to train on it.
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) trained: bool,
}

/// Tokens, and which of them to train on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    pub(super) mask: Vec<bool>,
}

/// What became of a sample's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is as long as its row.
    Whole,
    /// A part of it was cut off.
    Cut,
}

impl<'a> TextEncoder<'a> {
    /// Gathers what texts are encoded with. `generation` names further EOS ids.
    ///
    /// # Errors
    /// When EOS is to be added and neither tokenizer nor model names one.
    pub fn new(
        config: &DataConfig,
        tokenizer: &'a Tokenizer,
        template: Option<&'a ChatTemplate>,
        generation: &GenerationConfig,
    ) -> Result<Self, Error> {
        let eos: Vec<u32> =
            tokenizer.eos().into_iter().chain(generation.eos_token_ids.iter().copied()).collect();
        if config.append_eos && eos.is_empty() {
            return Err(Error::NoEos);
        }
        let starts_with = tokenizer.encode("", true).ok().and_then(|ids| ids.first().copied());
        Ok(Self {
            tokenizer,
            template,
            bos: tokenizer.bos().filter(|bos| starts_with == Some(*bos)),
            eos,
            append_eos: config.append_eos,
            completion_only: config.completion_only,
            max_tokens: config.max_tokens,
            over_long: config.over_long,
            attributes: None,
        })
    }

    /// Returns the same with attributes in every [`PromptSample`](super::PromptSample), as SteerLM has them.
    #[must_use]
    pub fn with_attributes(self, attributes: Option<Attributes>) -> Self {
        Self { attributes, ..self }
    }

    /// Puts the attributes into a prompt, where there are some.
    ///
    /// # Errors
    /// When it has no place for them.
    pub(super) fn conditioned(&self, prompt: Content) -> Result<Content, String> {
        match &self.attributes {
            Some(attributes) => attributes.within(prompt),
            None => Ok(prompt),
        }
    }

    /// Returns the same without a limit of length.
    pub(super) fn unlimited(&self) -> Self {
        Self { max_tokens: usize::MAX, ..self.clone() }
    }

    /// Returns the longest length of a sample (tokens).
    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Returns the model's chat template.
    ///
    /// # Errors
    /// When it has none.
    pub(super) fn template(&self) -> Result<&ChatTemplate, String> {
        self.template.ok_or_else(|| "is a conversation, and the model has no chat template".into())
    }

    /// Says whether prompts are left out of what is trained on.
    pub(super) fn completion_only(&self) -> bool {
        self.completion_only
    }

    /// Encodes plain text, piece by piece, and ends it.
    pub(super) fn text(&self, pieces: &[Piece]) -> Result<Tokens, String> {
        let mut tokens = self.pieces(pieces)?;
        if let Some(bos) = self.bos {
            tokens.ids.insert(0, bos);
            tokens.mask.insert(0, false);
        }
        self.end(&mut tokens);
        Ok(tokens)
    }

    /// Encodes what a chat template made, piece by piece, and ends it.
    pub(super) fn conversation(&self, mut pieces: Vec<Piece>) -> Result<Tokens, String> {
        chat::trim_end(&mut pieces);
        let mut tokens = self.pieces(&pieces)?;
        if pieces.last().is_some_and(|last| last.trained) {
            self.end(&mut tokens);
        }
        Ok(tokens)
    }

    /// Encodes a prompt: plain text, to be continued.
    pub(super) fn prompt(&self, text: &str) -> Result<Vec<u32>, String> {
        let ids = self.encode(text)?;
        Ok(self.bos.into_iter().chain(ids).collect())
    }

    /// Encodes a prompt that a chat template made.
    pub(super) fn chat_prompt(&self, text: &str) -> Result<Vec<u32>, String> {
        self.encode(text)
    }

    /// Makes a sample as long as it may be, cutting off its end.
    pub(super) fn fit(&self, tokens: &mut Tokens) -> Result<Fit, String> {
        let fit = self.too_long(tokens.ids.len())?;
        tokens.ids.truncate(self.max_tokens);
        tokens.mask.truncate(self.max_tokens);
        Ok(fit)
    }

    /// Makes a prompt as long as it may be, cutting off its beginning but for BOS.
    pub(super) fn fit_prompt(&self, ids: &mut Vec<u32>) -> Result<Fit, String> {
        let fit = self.too_long(ids.len())?;
        let excess = ids.len().saturating_sub(self.max_tokens);
        let kept = usize::from(ids.first().copied() == self.bos && self.bos.is_some());
        ids.drain(kept..kept + excess);
        Ok(fit)
    }

    fn too_long(&self, length: usize) -> Result<Fit, String> {
        match self.over_long {
            _ if length <= self.max_tokens => Ok(Fit::Whole),
            OverLong::Truncate => Ok(Fit::Cut),
            OverLong::Drop => Err(format!("longer than {} tokens", self.max_tokens)),
        }
    }

    fn pieces(&self, pieces: &[Piece]) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        let mut before = "";
        for piece in pieces {
            tokens.ids.extend(self.continuation(before, &piece.text)?);
            tokens.mask.resize(tokens.ids.len(), piece.trained);
            before = &piece.text;
        }
        Ok(tokens)
    }

    /// Returns the ids of `text` as they stand after `before`.
    fn continuation(&self, before: &str, text: &str) -> Result<Vec<u32>, String> {
        if !before.is_empty() {
            let whole = self.encode(&format!("{before}{text}"))?;
            if let Some(rest) = whole.strip_prefix(self.encode(before)?.as_slice()) {
                return Ok(rest.to_vec());
            }
        }
        self.encode(text)
    }

    fn end(&self, tokens: &mut Tokens) {
        let ended = tokens.ids.last().is_some_and(|last| self.eos.contains(last));
        if let (true, false, Some(&eos)) = (self.append_eos, ended, self.eos.first()) {
            tokens.ids.push(eos);
            tokens.mask.push(true);
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        self.tokenizer.encode(text, false).map_err(|error| error.to_string())
    }
}
