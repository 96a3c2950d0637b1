//! Completions whose answer is a number.
//!
//! What is taken for the answer: what the last `\boxed{}` holds (MATH; Hendrycks et al., 2021), or what comes after the last
//! `####` (GSM8K; Cobbe et al., 2021), or else the last number of the text. Units, currency signs and LaTeX's spaces are
//! stripped, as in the evaluation of Minerva (Lewkowycz et al., 2022, appendix D.1).

use std::sync::LazyLock;

use anyhow::{Result, ensure};
use regex::Regex;

use super::verdict;
use crate::{
    data::PromptSample,
    model::Tokenizer,
    run::reward::{Column, Completion, Source},
    trainer::reward::Reward,
};

/// 1 for the right number, 0 for any other and for none.
pub(in crate::run::reward) struct Numeric {
    pub(in crate::run::reward) column: Column,
    pub(in crate::run::reward) tolerance: f64,
    pub(in crate::run::reward) tokenizer: Tokenizer,
}

impl Source for Numeric {
    fn check(&self, prompt: &PromptSample) -> Result<()> {
        let wanted = self.column.text_or_number(prompt)?;
        let (place, name) = (&prompt.place, self.column.name());
        ensure!(
            answer(&wanted).is_some(),
            "{place}: column {name:?} has no number, got {wanted:?}"
        );
        Ok(())
    }

    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            let text = completion.text(&self.tokenizer)?;
            let wanted = self.column.text_or_number(completion.prompt)?;
            Ok(verdict(is_right(&text, &wanted, self.tolerance)))
        };
        completions.iter().map(score).collect()
    }
}

/// A number as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Answer {
    number: f64,
    percent: bool,
}

/// Says whether two texts have the same answer.
fn is_right(text: &str, wanted: &str, tolerance: f64) -> bool {
    let (Some(found), Some(wanted)) = (answer(text), answer(wanted)) else { return false };
    let near = |a: f64, b: f64| (a - b).abs() <= tolerance * b.abs().max(1.0);
    // Where only one of them has the sign, it may be there or be meant: 50% is 50, and is 0.5.
    near(found.number, wanted.number)
        || match (found.percent, wanted.percent) {
            (true, false) => near(found.number / 100.0, wanted.number),
            (false, true) => near(found.number, wanted.number / 100.0),
            _ => false,
        }
}

/// A number: a sign, a whole part before a fraction (`2 1/2`), thousands in groups of three, decimals, an exponent, a
/// denominator, a percent sign.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    let plain = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)";
    let number = format!(
        r"(?<sign>[-+])?(?:(?<whole>\d+)\s+(?<part>\d+)\s*/\s*(?<of>\d+)|(?<number>{plain}(?:[eE][-+]?\d+)?)(?:\s*/\s*(?<denominator>{plain}))?)\s*(?<percent>%)?"
    );
    Regex::new(&number).expect("it compiles in the tests")
});

/// `\frac{a}{b}`, `\dfrac{a}{b}`, `\tfrac{a}{b}`, `\frac12`.
static FRACTION: LazyLock<Regex> = LazyLock::new(|| {
    let fraction =
        r"(-)?\s*\\[dt]?frac\s*(?:\{\s*([-+]?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}|(\d)(\d))";
    Regex::new(fraction).expect("it compiles in the tests")
});

/// Finds a text's answer.
fn answer(text: &str) -> Option<Answer> {
    if let Some(boxed) = last_boxed(text) {
        return last_number(boxed);
    }
    match text.rsplit_once("####") {
        Some((_, after)) => first_number(after),
        None => last_number(text),
    }
}

/// Returns what the last `\boxed{...}` holds, whose braces may be nested.
fn last_boxed(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once("\\boxed{")?;
    let mut depth = 1;
    for (at, c) in after.char_indices() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if depth == 0 {
            return Some(&after[..at]);
        }
    }
    None
}

fn first_number(text: &str) -> Option<Answer> {
    numbers(&plain(text)).into_iter().next()
}

fn last_number(text: &str) -> Option<Answer> {
    numbers(&plain(text)).pop()
}

/// Turns LaTeX and typography into plain signs.
fn plain(text: &str) -> String {
    let mut plain = text.replace(['\u{2212}', '\u{2013}'], "-");
    for (mark, sign) in [("\\%", "%"), ("\\$", "$"), ("{,}", ","), ("\\!", ""), ("\\,", "")] {
        plain = plain.replace(mark, sign);
    }
    // `2\frac{1}{2}` is a mixed number: the space keeps the whole part apart.
    let plain = FRACTION.replace_all(&plain, "$1 $2$4/$3$5");
    plain.replace("- ", "-").replace("-$", "$-").replace('$', " ")
}

fn numbers(text: &str) -> Vec<Answer> {
    let found = NUMBER.captures_iter(text).filter_map(|found| {
        let number = |name: &str| -> Option<f64> {
            found.name(name)?.as_str().replace(',', "").parse().ok()
        };
        let size = match (number("whole"), number("part"), number("of")) {
            (Some(whole), Some(part), Some(of)) => whole + part / of,
            _ => number("number")? / number("denominator").unwrap_or(1.0),
        };
        // Between two numbers or words a hyphen is no sign: 3-4, x-1.
        let start = found.get(0)?.start();
        let before = text[..start].chars().next_back();
        let joined = before.is_some_and(char::is_alphanumeric);
        let negative = !joined && found.name("sign").is_some_and(|sign| sign.as_str() == "-");
        let number = if negative { -size } else { size };
        let percent = found.name("percent").is_some();
        number.is_finite().then_some(Answer { number, percent })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_text_is_found() {
        let table = [
            ("72", Some(72.0)),
            ("The answer is 72.", Some(72.0)),
            ("3 + 4 = 7 apples", Some(7.0)),
            ("-3", Some(-3.0)),
            ("\u{2212}3.5", Some(-3.5)),
            ("between 3-4", Some(4.0)),
            ("x-1", Some(1.0)),
            ("1,234,567", Some(1_234_567.0)),
            ("1,234.5", Some(1234.5)),
            ("1, 2, 3", Some(3.0)),
            ("1{,}234", Some(1234.0)),
            ("12,34", Some(34.0)),
            ("$1,200", Some(1200.0)),
            ("\\$18", Some(18.0)),
            ("-$5", Some(-5.0)),
            ("$-5$", Some(-5.0)),
            ("18 dollars", Some(18.0)),
            ("5 km/h", Some(5.0)),
            (".5", Some(0.5)),
            ("1.5e3", Some(1500.0)),
            ("2e-2", Some(0.02)),
            ("3/4", Some(0.75)),
            ("2 1/2", Some(2.5)),
            ("-2 1/2 m", Some(-2.5)),
            ("\\frac{3}{4}", Some(0.75)),
            ("-\\frac{3}{4}", Some(-0.75)),
            ("\\dfrac12", Some(0.5)),
            ("2\\frac{1}{2}", Some(2.5)),
            ("\\frac{-1}{4}", Some(-0.25)),
            ("so \\boxed{42}, not 7", Some(42.0)),
            ("\\boxed{1} \\boxed{\\frac{1}{2}}", Some(0.5)),
            ("\\boxed{10\\text{ cm}}", Some(10.0)),
            ("\\boxed{x}, 7", None),
            ("\\boxed{7", Some(7.0)),
            ("#### 72\nwell, 3", Some(72.0)),
            ("72 #### none", None),
            ("1/0", None),
            ("none", None),
            ("", None),
        ];
        for (text, number) in table {
            assert_eq!(answer(text).map(|answer| answer.number), number, "{text:?}");
        }
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let table = [
            ("72", "#### 72", true),
            ("1,000", "1000", true),
            ("\\frac{1}{3}", "0.3333333", true),
            ("0.333", "1/3", false),
            ("0.5", "50%", true),
            ("50", "50%", true),
            ("50\\%", "50", true),
            ("50%", "0.5", true),
            ("50%", "50%", true),
            ("0.5%", "50%", false),
            ("73", "72", false),
            ("-72", "72", false),
            ("1000000.5", "1000000", true),
            ("1000002", "1000000", false),
            ("none", "72", false),
        ];
        for (text, wanted, right) in table {
            assert_eq!(is_right(text, wanted, 1e-6), right, "{text:?} {wanted:?}");
        }
        assert!(is_right("0.33", "1/3", 0.01) && !is_right("0.33", "1/3", 0.0));
        assert!(is_right("99", "100", 0.01) && !is_right("98", "100", 0.01));
    }
}
