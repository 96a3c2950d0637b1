//! Text of which one token after the other arrives, given out as soon as it can't change any more.

use super::{Tokenizer, error::Result};

/// Decodes token by token. The pieces together are what [`Tokenizer::decode`] makes of all ids.
///
/// A character whose bytes are spread over several tokens comes out with the last of them.
#[derive(Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special_tokens: bool,
    /// Bytes that do not yet make a character (byte-level vocabularies).
    bytes: Vec<u8>,
    /// Recent ids (others): those of the last piece, then those not yet given out.
    ids: Vec<u32>,
    given: usize,
}

impl TextStream {
    pub(super) fn new(tokenizer: Tokenizer, skip_special_tokens: bool) -> Self {
        Self { tokenizer, skip_special_tokens, bytes: vec![], ids: vec![], given: 0 }
    }

    /// Takes in an id and returns the text that is now certain; often a word, sometimes nothing.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        if self.skip_special_tokens && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        if self.tokenizer.is_byte_level() {
            self.bytes.extend(self.tokenizer.bytes_of(id).unwrap_or_default());
            return Ok(self.take_characters());
        }
        self.ids.push(id);
        let text = self.tail()?;
        // What ends in U+FFFD may be a character whose last bytes are still to come.
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(text)
    }

    /// Returns what was held back: bytes that never became a character, as U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(self) -> Result<String> {
        if self.tokenizer.is_byte_level() {
            return Ok(String::from_utf8_lossy(&self.bytes).into_owned());
        }
        if self.given < self.ids.len() { self.tail() } else { Ok(String::new()) }
    }

    /// Returns the text of the ids not yet given out, decoded together with the piece before, on which it may depend
    /// (a leading space).
    fn tail(&self) -> Result<String> {
        let decode = |ids: &[u32]| self.tokenizer.decode(ids, self.skip_special_tokens);
        let (before, all) = (decode(&self.ids[..self.given])?, decode(&self.ids)?);
        match all.strip_prefix(before.as_str()) {
            Some(tail) => Ok(tail.to_owned()),
            // Broken bytes after a character can spoil it in hindsight; it is out, so only what is new counts.
            None => decode(&self.ids[self.given..]),
        }
    }

    fn take_characters(&mut self) -> String {
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let broken = chunk.invalid();
            let at_end = used + broken.len() == self.bytes.len();
            // No error length: the bytes are the beginning of a character.
            let unfinished = std::str::from_utf8(broken).is_err_and(|e| e.error_len().is_none());
            if at_end && unfinished {
                break;
            }
            if !broken.is_empty() {
                text.push('\u{fffd}');
                used += broken.len();
            }
        }
        self.bytes.drain(..used);
        text
    }
}
