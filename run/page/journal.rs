//! The newest lines of `journal.jsonl`; warnings are kept longest.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many lines are kept, of warnings and of the others.
const MOST: usize = 200;
/// Longer texts are cut.
const LONGEST_TEXT: usize = 2000;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its place in the file.
    #[serde(default)]
    pub(super) line: u64,
    /// Unix seconds; 0 where the line has none.
    #[serde(default)]
    pub(super) time: f64,
    #[serde(default)]
    pub(super) step: u64,
    pub(super) kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) text: String,
}

impl Entry {
    /// Reads a line. `None` if it is none.
    pub(super) fn parse(line: u64, text: &str) -> Option<Self> {
        let mut entry: Self = serde_json::from_str(text).ok()?;
        entry.line = line;
        entry.text = cut(&entry.text, LONGEST_TEXT);
        Some(entry)
    }

    /// Says whether it tells of something that is not as it should be.
    pub(super) fn is_warning(&self) -> bool {
        self.kind == "warning" || self.kind == "error"
    }

    /// Says whether the run ended in it.
    fn is_end(&self) -> bool {
        self.kind == "stop" || self.kind == "error"
    }

    fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }
}

/// Returns a text, or its beginning and an ellipsis.
pub(super) fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What the journal says.
#[derive(Debug, Default)]
pub(super) struct Journal {
    warnings: VecDeque<Entry>,
    others: VecDeque<Entry>,
    lines: u64,
    /// When the run began, or went on last.
    pub(super) begun: Option<f64>,
    /// Steps in the whole run, as its start says.
    pub(super) total: Option<u64>,
    /// How it ended, unless it went on since.
    pub(super) end: Option<Entry>,
}

impl Journal {
    /// Adds a line of the file. Returns it, unless it is no entry.
    pub(super) fn push(&mut self, text: &str) -> Option<Entry> {
        self.lines += 1;
        let entry = Entry::parse(self.lines, text)?;
        let starts = entry.is_named("start");
        if starts {
            self.total = first_number(&entry.text);
        }
        if starts || entry.kind == "resume" {
            self.begun = Some(entry.time);
            self.end = None;
        } else if entry.is_end() {
            self.end = Some(entry.clone());
        }
        let kept = if entry.is_warning() { &mut self.warnings } else { &mut self.others };
        if kept.len() == MOST {
            kept.pop_front();
        }
        kept.push_back(entry.clone());
        Some(entry)
    }

    /// Says whether the run came to its end.
    pub(super) fn is_finished(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_named("finished"))
    }

    /// Returns what is kept, in the file's order.
    pub(super) fn entries(&self) -> Vec<&Entry> {
        let mut entries: Vec<_> = self.warnings.iter().chain(&self.others).collect();
        entries.sort_by_key(|entry| entry.line);
        entries
    }
}

/// Returns the first number in a text: "ppo: 20 iterations" is of 20.
fn first_number(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, name: &str, text: &str) -> String {
        format!(r#"{{"time":5.5,"step":1,"kind":"{kind}","name":"{name}","text":"{text}"}}"#)
    }

    #[test]
    fn notes_without_end_do_not_push_out_a_warning() {
        let mut journal = Journal::default();
        journal.push(&line("warning", "kl", "it is high"));
        for _ in 0..3 * MOST {
            journal.push(&line("note", "", "all is well"));
        }
        let entries = journal.entries();
        assert_eq!(entries.len(), MOST + 1);
        assert_eq!((entries[0].text.as_str(), entries[0].line), ("it is high", 1));
        assert_eq!(entries[1].line, 2 * MOST as u64 + 2);
    }

    #[test]
    fn the_last_stop_counts_until_the_run_goes_on() {
        let mut journal = Journal::default();
        journal.push(&line("note", "start", "ppo: 20 iterations"));
        assert_eq!((journal.total, journal.begun), (Some(20), Some(5.5)));
        journal.push(&line("stop", "signal", "SIGTERM"));
        assert!(!journal.is_finished() && journal.end.as_ref().unwrap().text == "SIGTERM");
        journal.push(&line("resume", "", "after iteration 3"));
        assert!(journal.end.is_none());
        journal.push(&line("stop", "finished", "20 iterations"));
        assert!(journal.is_finished());
    }

    #[test]
    fn lines_that_are_none_are_passed_over_and_long_ones_cut() {
        let mut journal = Journal::default();
        assert_eq!(journal.push("{\"kind\":\"note\"}"), None);
        assert_eq!(journal.push("[1,"), None);
        let entry = journal.push(&line("note", "", &"ä".repeat(3 * LONGEST_TEXT))).unwrap();
        assert_eq!(entry.text.chars().count(), LONGEST_TEXT + 1);
        assert_eq!(entry.line, 3);
    }
}
