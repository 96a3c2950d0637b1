//! Completions that must have a form.

use anyhow::{Context, Result};
use regex::Regex;

use super::verdict;
use crate::{
    model::Tokenizer,
    run::reward::{Completion, Source},
    trainer::reward::Reward,
};

/// 1 for a completion of a form, 0 for any other.
pub(in crate::run::reward) struct Format {
    template: Option<Template>,
    contains: Vec<String>,
    tokenizer: Tokenizer,
}

impl Format {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is too long.
    pub(in crate::run::reward) fn new(
        template: Option<&str>,
        contains: &[String],
        tokenizer: Tokenizer,
    ) -> Result<Self> {
        let template = template.map(Template::new).transpose()?;
        Ok(Self { template, contains: contains.to_vec(), tokenizer })
    }
}

impl Source for Format {
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            let text = completion.text(&self.tokenizer)?;
            let contains = self.contains.iter().all(|wanted| text.contains(wanted));
            let follows = self.template.as_ref().is_none_or(|template| template.is_followed(&text));
            Ok(verdict(contains && follows))
        };
        completions.iter().map(score).collect()
    }
}

/// A form with gaps.
struct Template {
    whole: Regex,
    /// What is written between gaps; two tags in a row are two parts.
    parts: Vec<String>,
}

impl Template {
    /// Reads text with `{}` where anything may stand.
    fn new(template: &str) -> Result<Self> {
        let tags = template.replace("><", ">\0<");
        let written: Vec<Vec<&str>> = tags
            .split("{}")
            .map(|text| text.split('\0').map(str::trim).filter(|part| !part.is_empty()).collect())
            .collect();
        let pattern: Vec<String> = written
            .iter()
            .map(|parts| {
                parts.iter().map(|part| regex::escape(part)).collect::<Vec<_>>().join(r"\s*")
            })
            .collect();
        let whole = Regex::new(&format!(r"(?s)^\s*{}\s*$", pattern.join(".*?")))
            .context("reward.template cannot be used")?;
        Ok(Self { whole, parts: written.concat().into_iter().map(str::to_owned).collect() })
    }

    /// Says whether a text is of the form as a whole. A part that comes once too often is a form within the form.
    fn is_followed(&self, text: &str) -> bool {
        let written = |part: &String| self.parts.iter().filter(|other| *other == part).count();
        let once = |part: &String| text.matches(part.as_str()).count() == written(part);
        self.whole.is_match(text) && self.parts.iter().all(once)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_follows_its_template_as_a_whole_and_once() {
        let reasoning = "<think>{}</think><answer>{}</answer>";
        for (template, text, right) in [
            (reasoning, "<think>so</think><answer>4</answer>", true),
            (reasoning, " <think>\n</think>\n\n<answer>4</answer>\n", true),
            (reasoning, "<think>so</think> hm <answer>4</answer>", false),
            (reasoning, "hm <think>so</think><answer>4</answer>", false),
            (reasoning, "<think>so</think><answer>4</answer> hm", false),
            (reasoning, "<think>so</think>", false),
            (reasoning, "<answer>4</answer><think>so</think>", false),
            (reasoning, "<think>a<think>b</think><answer>4</answer>", false),
            (reasoning, "<think>so</think><answer>3</answer><answer>4</answer>", false),
            (reasoning, "", false),
            ("<think>{}</think>{}", "<think>so</think> it is 4", true),
            ("<think>{}</think>{}", "it is <think>so</think>", false),
            ("{} Answer: {}", "it is so. Answer: 4", true),
            ("{} Answer: {}", "it is so.", false),
            ("yes", "yes", true),
            ("yes", "yes, yes", false),
            ("--{}--", "--a--", true),
            ("--{}--", "--", false),
        ] {
            let template = Template::new(template).unwrap();
            assert_eq!(template.is_followed(text), right, "{} {text:?}", template.whole);
        }
    }
}
