//! Reads a text word by word and says whether it praises, and whether it is English of the demo's kind.
//!
//! Independent of the reward model: it has the lexicon and four rules (modifiers, negation, "but", "although") and was
//! trained on nothing. What it cannot decide counts as neutral, so never as positive.

use std::collections::HashSet;

use super::{
    Grammar, Sentiment,
    lexicon::{self, HEDGES, INTENSIFIERS, NEGATIONS},
};

/// Least share of adjacent word pairs that the grammar also writes, for a text to count as fluent.
const FLUENT: f64 = 0.8;

/// Least number of words of a fluent text.
const FEWEST_WORDS: usize = 6;

/// How many reviews of the grammar the judge learns word pairs from.
const EXAMPLES: usize = 20_000;

/// What the judge says of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Worth of the words of praise and blame.
    pub score: i32,
    /// The sign of the score.
    pub sentiment: Sentiment,
    /// Share of adjacent word pairs that the grammar also writes.
    pub known_pairs: f64,
    /// Long enough, and most word pairs are known.
    pub fluent: bool,
}

/// What the judge says of many texts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Share of texts that are positive and fluent.
    pub positive: f64,
    /// Share of texts that are negative.
    pub negative: f64,
    /// Share of fluent texts.
    pub fluent: f64,
    /// Distinct word pairs over all word pairs, all texts together (Li et al., 2016).
    pub distinct_2: f64,
    /// Mean number of words.
    pub mean_words: f64,
}

/// Scores text by the lexicon, and knows which words the grammar puts side by side.
pub struct Judge {
    pairs: HashSet<(String, String)>,
}

impl Default for Judge {
    fn default() -> Self {
        Self::new()
    }
}

impl Judge {
    /// Reads many reviews of the grammar for their word pairs; always the same ones.
    pub fn new() -> Self {
        let mut grammar = Grammar::new(0x006a_7564_6765);
        let mut pairs = HashSet::new();
        for _ in 0..EXAMPLES {
            let sentiment = grammar.sentiment();
            let words = words(&grammar.review(sentiment).text());
            pairs.extend(words.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())));
        }
        Self { pairs }
    }

    /// Judges one text.
    pub fn judge(&self, text: &str) -> Verdict {
        let words = words(text);
        let score = score(&words);
        let known = words
            .windows(2)
            .filter(|pair| self.pairs.contains(&(pair[0].clone(), pair[1].clone())))
            .count();
        let known_pairs = known as f64 / words.len().saturating_sub(1).max(1) as f64;
        let fluent = words.len() >= FEWEST_WORDS && known_pairs >= FLUENT;
        Verdict { score, sentiment: Sentiment::of(score), known_pairs, fluent }
    }

    /// Judges many texts. All zeros for none.
    pub fn summarise<T: AsRef<str>>(&self, texts: &[T]) -> Summary {
        let verdicts: Vec<Verdict> = texts.iter().map(|text| self.judge(text.as_ref())).collect();
        let count = texts.len().max(1) as f64;
        let share = |what: &dyn Fn(&Verdict) -> bool| {
            verdicts.iter().filter(|verdict| what(verdict)).count() as f64 / count
        };
        let lengths = texts.iter().map(|text| text.as_ref().split_whitespace().count());
        Summary {
            positive: share(&|verdict| verdict.fluent && verdict.sentiment == Sentiment::Positive),
            negative: share(&|verdict| verdict.sentiment == Sentiment::Negative),
            fluent: share(&|verdict| verdict.fluent),
            distinct_2: distinct_2(texts),
            mean_words: lengths.sum::<usize>() as f64 / count,
        }
    }
}

/// Returns distinct adjacent word pairs over all of them, counted over all texts together. 0 when there are none.
///
/// The more text, the lower: compare equal amounts only.
pub fn distinct_2<T: AsRef<str>>(texts: &[T]) -> f64 {
    let mut all = 0;
    let mut distinct = HashSet::new();
    for text in texts {
        let words = words(text.as_ref());
        all += words.len().saturating_sub(1);
        distinct.extend(words.windows(2).map(|pair| (pair[0].clone(), pair[1].clone())));
    }
    distinct.len() as f64 / all.max(1) as f64
}

/// Splits into lower-case words and marks of punctuation.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in text.chars() {
        if letter.is_alphanumeric() || letter == '\'' {
            words.last_mut().expect("never empty").extend(letter.to_lowercase());
        } else {
            words.push(if letter.is_whitespace() { String::new() } else { letter.to_string() });
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Where the reader is within a sentence.
#[derive(Clone, Copy, Default)]
struct Reading {
    weight: i32,
    conceding: bool,
    negated: bool,
    intensified: bool,
    hedged: bool,
}

impl Reading {
    const SENTENCE: Self =
        Self { weight: 1, conceding: false, negated: false, intensified: false, hedged: false };

    /// Starts a clause: negation and modifiers do not reach across.
    fn clause(self, weight: i32, conceding: bool) -> Self {
        Self { weight, conceding, ..Self::SENTENCE }
    }
}

/// Adds up the worth of the words, as negation and modifiers turn it; what follows "but", or the comma after
/// "although", counts twice.
fn score(words: &[String]) -> i32 {
    let mut total = 0;
    let mut now = Reading::SENTENCE;
    for word in words.iter().map(String::as_str) {
        now = match word {
            "." | "!" | "?" => Reading::SENTENCE,
            "but" => now.clause(2, false),
            "although" => now.clause(1, true),
            "," if now.conceding => now.clause(2, false),
            "," | "and" | "that" => now.clause(now.weight, now.conceding),
            _ if NEGATIONS.contains(&word) || word.ends_with("n't") => {
                Reading { negated: true, ..now }
            }
            _ if INTENSIFIERS.contains(&word) => Reading { intensified: true, ..now },
            _ if HEDGES.contains(&word) => Reading { hedged: true, ..now },
            _ => {
                if let Some(worth) = lexicon::worth(word) {
                    let turned = lexicon::modified(worth, now.intensified, now.hedged, now.negated);
                    total += now.weight * turned;
                }
                Reading { intensified: false, hedged: false, ..now }
            }
        };
    }
    total
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    static JUDGE: LazyLock<Judge> = LazyLock::new(Judge::new);

    #[test]
    fn fresh_reviews_are_judged_as_the_grammar_labels_them() {
        let mut grammar = Grammar::new(77);
        let mut fluent = 0;
        for _ in 0..3000 {
            let sentiment = grammar.sentiment();
            let review = grammar.review(sentiment);
            let verdict = JUDGE.judge(&review.text());
            assert_eq!(verdict.score, review.score, "{}", review.text());
            assert_eq!(verdict.sentiment, review.sentiment(), "{}", review.text());
            fluent += usize::from(verdict.fluent);
        }
        assert!(fluent > 2990, "{fluent} of 3000 are fluent");
    }

    #[test]
    fn cases_written_by_hand() {
        use Sentiment::{Negative, Neutral, Positive};
        let cases = [
            ("The lid is good.", Positive),
            ("The lid is not good.", Negative),
            ("The lid isn't very good.", Negative),
            ("The lid is not bad.", Positive),
            ("It never broke.", Positive),
            ("I love the strap but the zipper is flimsy.", Negative),
            ("Although the zipper is flimsy, I love the strap.", Positive),
            ("The frame is not sturdy and the cover is ugly.", Negative),
            ("The frame is not wobbly and the cover is nice.", Positive),
            ("The lid is sturdy and the cord is weak.", Neutral),
            ("The box was brown.", Neutral),
            ("I do not regret buying it.", Positive),
            ("It is not worth the price.", Negative),
            ("There was no problem with the seams.", Positive),
            ("LOVELY!!! simply lovely", Positive),
            ("", Neutral),
            ("%$ 12 \u{fffd}\u{fffd}", Neutral),
        ];
        for (text, sentiment) in cases {
            assert_eq!(JUDGE.judge(text).sentiment, sentiment, "{text}");
        }
    }

    #[test]
    fn praise_that_is_no_english_is_not_fluent() {
        for text in [
            "great great great great great great great great",
            "I love this kettle wonderful superb perfect it lovely of great box",
            "the the lid lid is is good good and and it it",
            "good",
            "",
        ] {
            assert!(!JUDGE.judge(text).fluent, "{text}");
        }
        let summary = JUDGE.summarise(&["great great great great great great great"]);
        assert_eq!((summary.positive, summary.fluent), (0.0, 0.0));
    }

    #[test]
    fn distinct_2_falls_with_repetition() {
        assert_eq!(distinct_2(&["a b c d"]), 1.0);
        assert_eq!(distinct_2(&["a b a b a"]), 0.5);
        assert_eq!(distinct_2(&["a b", "a b"]), 0.5);
        assert_eq!(distinct_2::<&str>(&[]), 0.0);
    }
}
