//! Text, where the engine cannot do without it: stop strings, and completions as text.

use crate::{
    model::{TextStream, Tokenizer},
    rollout::StopReason,
};

/// Watches a completion's text for stop strings, which may span tokens.
#[derive(Debug)]
pub(super) struct StopWatch {
    stream: TextStream,
    /// The end of the text so far: as much as a stop string could begin in.
    tail: String,
}

impl StopWatch {
    /// Starts before the first token of a completion.
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        Self { stream: tokenizer.stream(true), tail: String::new() }
    }

    /// Takes one more token and returns the stop string that is now complete: the one that ends first, then the longest.
    pub(super) fn push<'a>(&mut self, token: u32, stops: &'a [String]) -> Option<&'a str> {
        // A token that the tokenizer cannot decode has no text, so it completes nothing.
        self.tail += &self.stream.push(token).unwrap_or_default();
        let found = stops
            .iter()
            .filter_map(|stop| {
                let end = self.tail.find(stop.as_str())? + stop.len();
                Some((end, std::cmp::Reverse(stop.len()), stop.as_str()))
            })
            .min();
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        let cut = self.tail.len().saturating_sub(longest.saturating_sub(1));
        self.tail.drain(..self.tail.floor_char_boundary(cut));
        found.map(|(_, _, stop)| stop)
    }
}

/// Returns a completion's text without special tokens, cut before the stop string that ended it, if any.
pub(super) fn completion_text(tokens: &[u32], stop: &StopReason, tokenizer: &Tokenizer) -> String {
    let decode = |ids: &[u32]| tokenizer.decode(ids, true).unwrap_or_default();
    let mut text = decode(tokens);
    if let (StopReason::Text(stop), Some((_, earlier))) = (stop, tokens.split_last()) {
        // The last token completed it; one that was complete before, within `min_new_tokens`, did not count.
        let from = decode(earlier).len().saturating_sub(stop.len()).min(text.len());
        let from = text.floor_char_boundary(from);
        if let Some(at) = text[from..].find(stop.as_str()) {
            text.truncate(from + at);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineModel;

    fn bytes() -> Tokenizer {
        EngineModel::tiny(0).tokenizer.unwrap()
    }

    fn stop_at(text: &str, stops: &[&str]) -> Option<(usize, String)> {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut watch = StopWatch::new(&bytes());
        text.bytes().enumerate().find_map(|(at, byte)| {
            watch.push(byte.into(), &stops).map(|stop| (at + 1, stop.to_owned()))
        })
    }

    #[test]
    fn a_stop_string_may_span_tokens_and_bytes() {
        assert_eq!(stop_at("ab\n\ncd", &["\n\n"]), Some((4, "\n\n".into())));
        assert_eq!(stop_at("x€€y", &["€€"]), Some((7, "€€".into())));
        assert_eq!(stop_at("abc", &["abd"]), None);
        assert_eq!(stop_at("a€b", &["b", "€b"]), Some((5, "€b".into())));
    }

    #[test]
    fn text_is_cut_before_the_stop_string_that_counted() {
        let cut = |text: &str| {
            let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
            completion_text(&tokens, &StopReason::Text(". ".into()), &bytes())
        };
        assert_eq!(cut("yes. "), "yes");
        assert_eq!(cut("a. b. "), "a. b");
    }
}
