//! Text into token ids and back, as `tokenizer.json` says.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use serde_json::{Map, Value};
use tokenizers::{AddedToken, DecoderWrapper};

use super::{Error, ModelSpec, error::Result, files};

/// A tokenizer of a model directory. Cheap to clone.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    special: SpecialTokens,
    byte_level: bool,
}

/// The special tokens as text, where the tokenizer names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Starts a text.
    pub bos: Option<String>,
    /// Ends a text.
    pub eos: Option<String>,
    /// Fills up batches.
    pub pad: Option<String>,
    /// Stands for what has no token.
    pub unk: Option<String>,
}

/// Token ids, each with the bytes of the text it stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id its range of bytes in the text; empty for tokens that were added.
    pub spans: Vec<Range<usize>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

impl Tokenizer {
    /// Opens `tokenizer.json` of a model directory, with the special tokens of `tokenizer_config.json`.
    ///
    /// # Errors
    /// When a file is missing or cannot be understood.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer.json");
        let bytes = files::read_if_there(&path)?.ok_or_else(|| Error::file(&path, "is missing"))?;
        let mut tokenizer = guarded(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|problem| Error::file(&path, format!("is not a tokenizer: {problem}")))?;
        let path = dir.join("tokenizer_config.json");
        let config = files::object_if_there(&path)?.unwrap_or_default();
        add_missing_tokens(&mut tokenizer, &config, &path)?;
        let mut special = SpecialTokens::read(&config);
        if let Some(map) = files::object_if_there(&dir.join("special_tokens_map.json"))? {
            special = special.or(SpecialTokens::read(&map));
        }
        Self::new(tokenizer, special)
    }

    /// Wraps a tokenizer that was made in memory.
    ///
    /// # Errors
    /// When its own settings contradict each other.
    pub fn new(mut tokenizer: tokenizers::Tokenizer, special: SpecialTokens) -> Result<Self> {
        // Lengths and padding are the caller's business; a saved tokenizer may carry those of its last use.
        tokenizer.with_truncation(None).map_err(failed)?;
        tokenizer.with_padding(None);
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        Ok(Self(Arc::new(Inner { tokenizer, special, byte_level })))
    }

    /// Returns the ids of a text. Special tokens written out in the text become their ids.
    ///
    /// `add_special_tokens` also adds those that the tokenizer puts around every text, such as a leading BOS. Text from
    /// a chat template has them already.
    ///
    /// # Errors
    /// When the text has no tokens under this vocabulary.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.0.tokenizer.encode_fast(text, add_special_tokens))
            .map_err(Error::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the ids of a text, each with its place in it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with_spans(&self, text: &str, add_special_tokens: bool) -> Result<Encoded> {
        let encoding = guarded(|| self.0.tokenizer.encode(text, add_special_tokens))
            .map_err(Error::Tokenizer)?;
        let spans = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok(Encoded { ids: encoding.get_ids().to_vec(), spans })
    }

    /// Returns the text of ids. Bytes that are no UTF-8 become U+FFFD; unknown ids give nothing.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        guarded(|| self.0.tokenizer.decode(ids, skip_special_tokens)).map_err(Error::Tokenizer)
    }

    /// Returns the id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.tokenizer.token_to_id(token)
    }

    /// Returns the token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.tokenizer.id_to_token(id)
    }

    /// Says whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.0.tokenizer.get_added_vocabulary();
        added.simple_id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }

    /// Returns the special tokens as text.
    pub fn special(&self) -> &SpecialTokens {
        &self.0.special
    }

    /// Returns the id that starts a text.
    pub fn bos(&self) -> Option<u32> {
        self.0.special.bos.as_deref().and_then(|token| self.token_to_id(token))
    }

    /// Returns the id that ends a text, as the tokenizer knows it; the model's generation config may name more.
    pub fn eos(&self) -> Option<u32> {
        self.0.special.eos.as_deref().and_then(|token| self.token_to_id(token))
    }

    /// Returns the id that fills up batches.
    pub fn pad(&self) -> Option<u32> {
        self.0.special.pad.as_deref().and_then(|token| self.token_to_id(token))
    }

    /// Returns the number of tokens, special ones included.
    pub fn vocab_size(&self) -> usize {
        self.0.tokenizer.get_vocab_size(true)
    }

    /// Checks that the model has an embedding for every token.
    ///
    /// # Errors
    /// When an id is beyond the model's vocabulary: the tokenizer is another model's.
    pub fn check(&self, spec: &ModelSpec) -> Result<()> {
        let vocab = self.0.tokenizer.get_vocab(true);
        let Some((token, id)) = vocab.into_iter().max_by_key(|(_, id)| *id) else {
            return Err(Error::Tokenizer("has no tokens".into()));
        };
        if (id as usize) < spec.vocab_size {
            return Ok(());
        }
        Err(Error::Tokenizer(format!(
            "is another model's: token {token:?} has id {id}, the model's vocab_size is {}",
            spec.vocab_size
        )))
    }

    /// Starts to decode a text of which one id after the other arrives.
    pub fn stream(&self, skip_special_tokens: bool) -> super::TextStream {
        super::TextStream::new(self.clone(), skip_special_tokens)
    }

    /// Returns the bytes of one token under a byte-level vocabulary; `None` under others.
    pub(super) fn bytes_of(&self, id: u32) -> Option<Vec<u8>> {
        let token = self.0.byte_level.then(|| self.id_to_token(id)).flatten()?;
        let bytes: Option<Vec<u8>> = token.chars().map(byte_of).collect();
        // Added tokens stand for themselves.
        Some(bytes.unwrap_or_else(|| token.into_bytes()))
    }

    /// Says whether every token stands for bytes of its own, whatever its neighbours.
    pub(super) fn is_byte_level(&self) -> bool {
        self.0.byte_level
    }

    /// Returns the contents of `tokenizer.json`.
    ///
    /// # Errors
    /// When the tokenizer cannot be written.
    pub fn to_json(&self) -> Result<String> {
        self.0.tokenizer.to_string(true).map_err(failed)
    }
}

/// Undoes GPT-2's table of printable stand-ins for bytes.
fn byte_of(stand_in: char) -> Option<u8> {
    let code = stand_in as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        // The other 68 bytes, in order, are U+0100 onwards.
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// `tokenizer_config.json` may name added tokens that `tokenizer.json` lacks.
fn add_missing_tokens(
    tokenizer: &mut tokenizers::Tokenizer,
    config: &Map<String, Value>,
    path: &Path,
) -> Result<()> {
    let Some(Value::Object(added)) = config.get("added_tokens_decoder") else { return Ok(()) };
    let mut tokens: Vec<(u32, AddedToken)> = Vec::new();
    for (id, token) in added {
        let bad =
            || Error::file(path, format!("added_tokens_decoder has a bad entry {id}: {token}"));
        let number = id.parse().map_err(|_| bad())?;
        let content = token.get("content").and_then(Value::as_str).ok_or_else(bad)?;
        let flag = |key: &str| token.get(key).and_then(Value::as_bool).unwrap_or(false);
        let added = AddedToken::from(content, flag("special"))
            .single_word(flag("single_word"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .normalized(flag("normalized"));
        tokens.push((number, added));
    }
    tokens.sort_by_key(|(id, _)| *id);
    for (id, token) in tokens {
        if tokenizer.token_to_id(&token.content).is_none() {
            tokenizer.add_tokens([token.clone()]).map_err(failed)?;
        }
        let got = tokenizer.token_to_id(&token.content).unwrap_or_default();
        if got != id {
            let problem = format!("gives {:?} the id {id}, tokenizer.json {got}", token.content);
            return Err(Error::file(path, problem));
        }
    }
    Ok(())
}

impl SpecialTokens {
    fn read(config: &Map<String, Value>) -> Self {
        // A token is a string, or an object with its string as `content`.
        let text = |key: &str| {
            let value = config.get(key)?;
            value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
        };
        Self {
            bos: text("bos_token"),
            eos: text("eos_token"),
            pad: text("pad_token"),
            unk: text("unk_token"),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            bos: self.bos.or(other.bos),
            eos: self.eos.or(other.eos),
            pad: self.pad.or(other.pad),
            unk: self.unk.or(other.unk),
        }
    }
}

fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer(one_line(&error))
}

/// Calls into the library, which panics over files and texts that contradict what it expects. It shares nothing with us that
/// such a panic could leave half done.
fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| one_line(&error)),
        Err(_) => Err("tokenizer.json contradicts itself".into()),
    }
}

fn one_line(error: &tokenizers::Error) -> String {
    error.to_string().lines().collect::<Vec<_>>().join(" ")
}
