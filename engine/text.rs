//! Tokens to text and back, as far as the engine needs it: stop strings and the text face of the API.

use super::Error;
use crate::rollout::StopReason;

/// Turns text into token ids and back.
///
/// The engine samples tokens; text matters to it only for stop strings and for callers who think in text.
pub trait TextCodec: Send + Sync {
    /// Returns the ids of a text, as a prompt would begin.
    ///
    /// # Errors
    /// When the text cannot be encoded.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error>;

    /// Returns the text of some ids, special tokens left out, `U+FFFD` in place of bytes that are not UTF-8.
    fn decode(&self, tokens: &[u32]) -> String;
}

/// Every byte is a token: id = byte. For examples and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByteCodec;

impl TextCodec for ByteCodec {
    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> =
            tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Decodes a growing sequence of tokens: text appears once its bytes are whole.
///
/// Decoding token by token is wrong where a character spans tokens or a token's text depends on its neighbour (leading
/// spaces). So a window is decoded twice, without and with the new tokens, and the difference is the new text.
#[derive(Clone, Debug, Default)]
pub struct TextDecoder {
    /// Tokens from the start of the window.
    window: Vec<u32>,
    /// How many of them have been turned into text already.
    read: usize,
}

impl TextDecoder {
    /// Takes one more token and returns the text it completes, empty while a character is cut in two.
    pub fn push(&mut self, token: u32, codec: &dyn TextCodec) -> String {
        self.window.push(token);
        let before = codec.decode(&self.window[..self.read]);
        let after = codec.decode(&self.window);
        if after.len() <= before.len() || after.ends_with(char::REPLACEMENT_CHARACTER) {
            return String::new();
        }
        let text = after.get(before.len()..).unwrap_or_default().to_owned();
        self.window.drain(..self.read);
        self.read = self.window.len();
        text
    }
}

/// Watches a completion's text for stop strings, which may span tokens.
#[derive(Clone, Debug, Default)]
pub(super) struct StopWatch {
    decoder: TextDecoder,
    /// The end of the text so far: as much as a stop string could begin in.
    tail: String,
}

impl StopWatch {
    /// Takes one more token and returns the stop string that is now complete: the one that ends first, then the longest.
    pub(super) fn push<'a>(
        &mut self,
        token: u32,
        stops: &'a [String],
        codec: &dyn TextCodec,
    ) -> Option<&'a str> {
        self.tail += &self.decoder.push(token, codec);
        let ends = |stop: &&'a String| self.tail.find(stop.as_str()).map(|at| at + stop.len());
        let found = stops
            .iter()
            .filter_map(|stop| ends(&stop).map(|end| (end, std::cmp::Reverse(stop.len()), stop)))
            .min();
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        let mut cut = self.tail.len().saturating_sub(longest.saturating_sub(1));
        while !self.tail.is_char_boundary(cut) {
            cut -= 1;
        }
        self.tail.drain(..cut);
        found.map(|(_, _, stop)| stop.as_str())
    }
}

/// Returns a completion's text, cut before the stop string that ended it, if any.
pub(super) fn completion_text(tokens: &[u32], stop: &StopReason, codec: &dyn TextCodec) -> String {
    let mut text = codec.decode(tokens);
    if let (StopReason::Text(stop), Some((_, earlier))) = (stop, tokens.split_last()) {
        // The last token completed it; an earlier one, within the first `min_new_tokens`, did not count.
        let mut from = codec.decode(earlier).len().saturating_sub(stop.len()).min(text.len());
        while !text.is_char_boundary(from) {
            from -= 1;
        }
        if let Some(at) = text[from..].find(stop.as_str()) {
            text.truncate(from + at);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words with a leading space that disappears at the start of a text, as SentencePiece has it.
    struct Words;

    impl TextCodec for Words {
        fn encode(&self, _: &str) -> Result<Vec<u32>, Error> {
            Ok(vec![])
        }

        fn decode(&self, tokens: &[u32]) -> String {
            let words = ["one", "two", "three"];
            tokens.iter().map(|&token| words[token as usize]).collect::<Vec<_>>().join(" ")
        }
    }

    fn stop_at(text: &str, stops: &[&str]) -> Option<(usize, String)> {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut watch = StopWatch::default();
        text.bytes().enumerate().find_map(|(at, byte)| {
            watch.push(byte.into(), &stops, &ByteCodec).map(|stop| (at + 1, stop.to_owned()))
        })
    }

    #[test]
    fn a_character_appears_with_its_last_byte() {
        let mut decoder = TextDecoder::default();
        let pieces: Vec<String> =
            "aé€".bytes().map(|byte| decoder.push(byte.into(), &ByteCodec)).collect();
        assert_eq!(pieces, ["a", "", "é", "", "", "€"]);
    }

    #[test]
    fn spaces_between_words_are_kept() {
        let mut decoder = TextDecoder::default();
        let text: String = [0, 1, 2, 1].iter().map(|&token| decoder.push(token, &Words)).collect();
        assert_eq!(text, "one two three two");
    }

    #[test]
    fn a_stop_string_may_span_tokens_and_bytes() {
        assert_eq!(stop_at("ab\n\ncd", &["\n\n"]), Some((4, "\n\n".into())));
        assert_eq!(stop_at("x€€y", &["€€"]), Some((7, "€€".into())));
        assert_eq!(stop_at("abc", &["abd"]), None);
        assert_eq!(stop_at("a€b", &["b", "€b"]), Some((5, "€b".into())));
    }

    #[test]
    fn text_is_cut_before_the_stop_string() {
        let tokens = ByteCodec.encode("yes. no").unwrap();
        let stop = StopReason::Text(". ".into());
        assert_eq!(completion_text(&tokens[..5], &stop, &ByteCodec), "yes");
        let tokens = ByteCodec.encode("a. b. ").unwrap();
        assert_eq!(completion_text(&tokens, &stop, &ByteCodec), "a. b");
    }
}
