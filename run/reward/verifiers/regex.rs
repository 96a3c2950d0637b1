//! Completions held against a regular expression.

use anyhow::{Result, anyhow};

use super::verdict;
use crate::{
    config::Take,
    data::PromptSample,
    model::Tokenizer,
    run::reward::{Column, Completion, Source},
    trainer::reward::Reward,
};

/// 1 where the expression matches, and captures what the column says where there is one.
pub(in crate::run::reward) struct Regex {
    pub(in crate::run::reward) rule: Pattern,
    pub(in crate::run::reward) column: Option<Column>,
    pub(in crate::run::reward) tokenizer: Tokenizer,
}

/// A regular expression and what of it counts.
pub(in crate::run::reward) struct Pattern {
    expression: regex::Regex,
    take: Take,
    /// The group that holds the answer; 0 is the whole match.
    group: usize,
}

impl Pattern {
    /// Compiles an expression. The answer is in its group `answer`, or the first, or the whole match.
    ///
    /// # Errors
    /// When it is none, or larger than the crate `regex` compiles.
    pub(in crate::run::reward) fn new(pattern: &str, take: Take) -> Result<Self> {
        let expression = regex::Regex::new(pattern).map_err(|error| {
            anyhow!("reward.pattern cannot be compiled: {:?}", error.to_string())
        })?;
        let named = expression.capture_names().position(|name| name == Some("answer"));
        let group = named.unwrap_or(usize::from(expression.captures_len() > 1));
        Ok(Self { expression, take, group })
    }

    fn is_right(&self, text: &str, wanted: Option<&str>) -> bool {
        let Some(wanted) = wanted else { return self.expression.is_match(text) };
        let captures = match self.take {
            Take::First => self.expression.captures(text),
            Take::Last => self.expression.captures_iter(text).last(),
        };
        // A group that took no part in the match has found nothing.
        let found = captures.and_then(|captures| captures.get(self.group));
        found.is_some_and(|found| found.as_str().trim() == wanted.trim())
    }
}

impl Source for Regex {
    fn check(&self, prompt: &PromptSample) -> Result<()> {
        self.column.iter().try_for_each(|column| column.text_or_number(prompt).map(drop))
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            let text = completion.text(&self.tokenizer)?;
            let wanted =
                self.column.as_ref().map(|column| column.text_or_number(completion.prompt));
            Ok(verdict(self.rule.is_right(&text, wanted.transpose()?.as_deref())))
        };
        completions.iter().map(score).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_or_what_it_captures_is_what_counts() {
        let table = [
            // Pattern, which match, text, column, right?
            (r"^\d+$", Take::First, "123", None, true),
            (r"^\d+$", Take::First, "12a", None, false),
            (r"\d+", Take::First, "a 12", None, true),
            (r"(?s)<a>.*</a>", Take::First, "<a>\n</a>", None, true),
            (r"answer: (\w+)", Take::First, "answer: b", Some("b"), true),
            (r"answer: (\w+)", Take::First, "answer: b", Some(" b\n"), true),
            (r"answer: (\w+)", Take::First, "answer: bc", Some("b"), false),
            (r"answer: (\w+)", Take::First, "the answer is b", Some("b"), false),
            (r"answer: (\w+)", Take::First, "answer: a, answer: b", Some("b"), false),
            (r"answer: (\w+)", Take::Last, "answer: a, answer: b", Some("b"), true),
            (r"answer: (\w+)", Take::Last, "answer: a, answer: b", Some("a"), false),
            (r"(so|thus) (?P<answer>\d)", Take::First, "thus 4", Some("4"), true),
            (r"(so|thus) (?P<answer>\d)", Take::First, "thus 4", Some("thus"), false),
            (r"\d+", Take::First, "it is 42.", Some("42"), true),
            (r"a(b)?", Take::First, "a", Some(""), false),
            (r"ü+", Take::First, "süüß", Some("üü"), true),
            (r"x", Take::First, "", None, false),
        ];
        for (pattern, take, text, column, right) in table {
            let rule = Pattern::new(pattern, take).unwrap();
            assert_eq!(rule.is_right(text, column), right, "{pattern} {text:?} {column:?}");
        }
    }
}
