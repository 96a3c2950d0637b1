//! Writes product reviews, each with the sentiment it was built to have.

use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    Sentiment,
    lexicon::{
        self, BAD, BADLY, COLORS, COMMON_PARTS, DURATIONS, EXCELLENT, FREQUENCIES, GOOD, HAPPY,
        HATE, HEDGES, INTENSIFIERS, JOBS, KINDS, Kind, LIKE, ORDINALS, PEOPLE, PLAIN, ROOMS, SHOPS,
        TERRIBLE, TIMES, UNHAPPY, WELL,
    },
    patterns::{BLAME, FACTS, OPENINGS, PRAISE},
};

/// Shortest and longest review, in words.
pub const WORDS: std::ops::RangeInclusive<usize> = 8..=40;

/// A review in two parts: what a model is given, and what it should learn to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// The neutral opening.
    pub prompt: String,
    /// The rest, starting with a space.
    pub completion: String,
    /// How positive it is: the worth of its words of praise and blame.
    pub score: i32,
}

impl Review {
    /// Returns the whole text.
    pub fn text(&self) -> String {
        format!("{}{}", self.prompt, self.completion)
    }

    /// Returns what the grammar says of it: the sign of its score.
    pub fn sentiment(&self) -> Sentiment {
        Sentiment::of(self.score)
    }
}

/// The opening of a review: a prompt, and what it is about.
#[derive(Clone, Copy)]
struct Subject {
    kind: Kind,
    product: &'static str,
}

/// An opening whose continuation is still to be written.
#[derive(Clone)]
pub struct Opening {
    /// The prompt.
    pub prompt: String,
    subject: Subject,
}

/// Text and its worth.
struct Phrase {
    text: String,
    score: i32,
}

/// A source of reviews; the same seed gives the same reviews.
pub struct Grammar {
    rng: ChaCha8Rng,
    /// Patterns already in the review that is being written: no clause is said twice.
    used: Vec<&'static str>,
}

impl Grammar {
    /// Starts a source.
    pub fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), used: Vec::new() }
    }

    /// Writes an opening.
    pub fn opening(&mut self) -> Opening {
        let kind = self.pick(KINDS);
        let subject = Subject { kind, product: self.pick(kind.products) };
        let pattern = self.pick(OPENINGS);
        Opening { prompt: self.fill(pattern, subject).text, subject }
    }

    /// Continues an opening so that the whole has the wanted sentiment.
    pub fn continue_opening(&mut self, opening: &Opening, sentiment: Sentiment) -> Review {
        loop {
            self.used.clear();
            let sentences = *[1, 2, 2, 3, 3, 4].choose(&mut self.rng).expect("not empty");
            let rest = self.sentences(sentences, opening.subject, sentiment);
            let prompt = opening.prompt.clone();
            let review = Review { prompt, completion: rest.text, score: rest.score };
            let words = review.text().split_whitespace().count();
            if review.sentiment() == sentiment && WORDS.contains(&words) {
                return review;
            }
        }
    }

    /// Writes a review of the wanted sentiment.
    pub fn review(&mut self, sentiment: Sentiment) -> Review {
        let opening = self.opening();
        self.continue_opening(&opening, sentiment)
    }

    /// Draws a sentiment: half positive, three tenths negative, two tenths neutral.
    pub fn sentiment(&mut self) -> Sentiment {
        match self.rng.random_range(0..10) {
            0..5 => Sentiment::Positive,
            5..8 => Sentiment::Negative,
            _ => Sentiment::Neutral,
        }
    }

    /// Returns a number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }

    fn sentences(&mut self, count: usize, subject: Subject, sentiment: Sentiment) -> Phrase {
        let mut all = Phrase { text: String::new(), score: 0 };
        for index in 0..count {
            let tone = self.tone(sentiment);
            // The first sentence goes on where the opening stopped.
            let sentence = self.sentence(subject, tone, index > 0);
            let text = if index == 0 { sentence.text } else { capitalised(&sentence.text) };
            all.text.push_str(&format!(" {text}."));
            all.score += sentence.score;
        }
        all
    }

    /// Most sentences of a review say what the review says; some are beside the point, a few against it.
    fn tone(&mut self, sentiment: Sentiment) -> Sentiment {
        match self.rng.random_range(0..10) {
            0..7 => sentiment,
            7..9 => Sentiment::Neutral,
            _ => sentiment.opposite(),
        }
    }

    /// Writes `A`, `A and B`, `A but B` or `although A, B`. What follows "but", or "although" and a comma, counts twice.
    fn sentence(&mut self, subject: Subject, tone: Sentiment, standing_alone: bool) -> Phrase {
        let forms = if standing_alone { 8 } else { 6 };
        let (before, after) = match self.rng.random_range(0..forms) {
            0..3 => return self.clause(subject, tone),
            3..4 | 6 => {
                let (first, second) = (self.clause(subject, tone), self.clause(subject, tone));
                let text = format!("{} and {}", first.text, second.text);
                return Phrase { text, score: first.score + second.score };
            }
            4..6 => ("", " but "),
            _ => ("although ", ", "),
        };
        let (concession, point) =
            (self.clause(subject, tone.opposite()), self.clause(subject, tone));
        let text = format!("{before}{}{after}{}", concession.text, point.text);
        Phrase { text, score: concession.score + 2 * point.score }
    }

    fn clause(&mut self, subject: Subject, tone: Sentiment) -> Phrase {
        let (pattern, worth) = self.fresh_pattern(match tone {
            Sentiment::Positive => PRAISE,
            Sentiment::Negative => BLAME,
            Sentiment::Neutral => FACTS,
        });
        let mut phrase = self.fill(pattern, subject);
        phrase.score += worth;
        phrase
    }

    /// Draws a pattern that this review has not used yet.
    fn fresh_pattern(&mut self, table: &'static [(&'static str, i32)]) -> (&'static str, i32) {
        loop {
            let (pattern, worth) = self.pick(table);
            if !self.used.contains(&pattern) {
                self.used.push(pattern);
                return (pattern, worth);
            }
        }
    }

    fn fill(&mut self, pattern: &str, subject: Subject) -> Phrase {
        let mut phrase = Phrase { text: String::new(), score: 0 };
        let mut rest = pattern;
        while let Some((before, slot_and_rest)) = rest.split_once('{') {
            let (slot, after) = slot_and_rest.split_once('}').expect("every slot is closed");
            let filled = self.slot(slot, subject);
            phrase.text.push_str(before);
            phrase.text.push_str(&filled.text);
            phrase.score += filled.score;
            rest = after;
        }
        phrase.text.push_str(rest);
        phrase.text = with_articles(&phrase.text);
        phrase
    }

    fn slot(&mut self, slot: &str, subject: Subject) -> Phrase {
        match slot {
            "good" => self.graded(&[GOOD, EXCELLENT]),
            "bad" => self.graded(&[BAD, TERRIBLE]),
            "happy" => self.graded(&[HAPPY]),
            "unhappy" => self.graded(&[UNHAPPY]),
            "well" => self.one_of(WELL, 2),
            "badly" => self.one_of(BADLY, -2),
            "good and good" => self.two_of(GOOD, 2),
            "bad and bad" => self.two_of(BAD, -2),
            "not good" => self.negated(GOOD, -1),
            "not bad" => self.negated(BAD, 1),
            "not happy" => self.negated(HAPPY, -1),
            "like" => Phrase { text: self.pick(LIKE).0.to_owned(), score: 2 },
            "likes" => Phrase { text: self.pick(LIKE).1.to_owned(), score: 2 },
            "hate" => Phrase { text: self.pick(HATE).0.to_owned(), score: -2 },
            "hates" => Phrase { text: self.pick(HATE).1.to_owned(), score: -2 },
            "not like" => Phrase { text: format!("not {}", self.pick(LIKE).0), score: -1 },
            _ => Phrase { text: self.neutral_slot(slot, subject), score: 0 },
        }
    }

    fn neutral_slot(&mut self, slot: &str, subject: Subject) -> String {
        let table = match slot {
            "product" => return subject.product.to_owned(),
            "part" => return self.part(subject).trim_end_matches('+').to_owned(),
            "part is" => return with_verb(self.part(subject)),
            "own part is" => return with_verb(self.pick(subject.kind.parts)),
            "person" => PEOPLE,
            "time" => TIMES,
            "duration" => DURATIONS,
            "frequency" => FREQUENCIES,
            "room" => ROOMS,
            "shop" => SHOPS,
            "color" => COLORS,
            "ordinal" => ORDINALS,
            "job" => JOBS,
            "plain" => PLAIN,
            unknown => unreachable!("no slot is called {unknown}"),
        };
        self.pick(table).to_owned()
    }

    /// A part of the product's own as often as one that every product has.
    fn part(&mut self, subject: Subject) -> &'static str {
        let parts = if self.rng.random() { subject.kind.parts } else { COMMON_PARTS };
        self.pick(parts)
    }

    /// A word of one of the tables, at times made stronger or weaker.
    fn graded(&mut self, tables: &[&'static [&'static str]]) -> Phrase {
        let table = *tables.choose(&mut self.rng).expect("not empty");
        let word = self.pick(table);
        let worth = lexicon::worth(word).expect("the tables are in the lexicon");
        let (modifier, intensified, hedged) = match self.rng.random_range(0..6) {
            0..4 => return Phrase { text: word.to_owned(), score: worth },
            4 => (self.pick(INTENSIFIERS), true, false),
            _ => (self.pick(HEDGES), false, true),
        };
        let score = lexicon::modified(worth, intensified, hedged, false);
        Phrase { text: format!("{modifier} {word}"), score }
    }

    fn one_of(&mut self, table: &'static [&'static str], score: i32) -> Phrase {
        Phrase { text: self.pick(table).to_owned(), score }
    }

    fn two_of(&mut self, table: &'static [&'static str], each: i32) -> Phrase {
        let two: Vec<&str> = table.choose_multiple(&mut self.rng, 2).copied().collect();
        Phrase { text: two.join(" and "), score: 2 * each }
    }

    fn negated(&mut self, table: &'static [&'static str], score: i32) -> Phrase {
        Phrase { text: format!("not {}", self.pick(table)), score }
    }

    fn pick<T: Copy>(&mut self, table: &'static [T]) -> T {
        *table.choose(&mut self.rng).expect("no table is empty")
    }
}

/// Writes "lid is" for "lid", "knobs are" for "knobs+".
fn with_verb(part: &str) -> String {
    part.strip_suffix('+').map_or_else(|| format!("{part} is"), |many| format!("{many} are"))
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Writes "an" before a vowel, as in "an awful coat" (but "a useful coat").
fn with_articles(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    let mut out = Vec::with_capacity(words.len());
    for (index, &word) in words.iter().enumerate() {
        let next = words.get(index + 1).copied().unwrap_or_default();
        let vowel = next.starts_with(['a', 'e', 'i', 'o', 'u']) && !next.starts_with("use");
        out.push(if word == "a" && vowel && !next.starts_with("usu") { "an" } else { word });
    }
    out.join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn many(count: usize) -> Vec<Review> {
        let mut grammar = Grammar::new(1);
        (0..count)
            .map(|_| {
                let sentiment = grammar.sentiment();
                grammar.review(sentiment)
            })
            .collect()
    }

    #[test]
    fn the_same_seed_writes_the_same_reviews() {
        assert_eq!(many(50), many(50));
        let mut other = Grammar::new(2);
        assert_ne!(many(1)[0], other.review(Sentiment::Positive));
    }

    #[test]
    fn reviews_have_the_sentiment_asked_for_and_a_readable_length() {
        let mut grammar = Grammar::new(3);
        for sentiment in [Sentiment::Positive, Sentiment::Negative, Sentiment::Neutral] {
            for _ in 0..200 {
                let review = grammar.review(sentiment);
                assert_eq!(review.sentiment(), sentiment, "{}", review.text());
                assert!(WORDS.contains(&review.text().split_whitespace().count()));
                assert!(!review.text().contains(['\n', '{', '+']) && !review.text().contains("  "));
                assert!(review.completion.starts_with(' ') && review.completion.ends_with('.'));
            }
        }
    }

    #[test]
    fn reviews_vary_in_words_and_length() {
        let reviews = many(4000);
        let texts: BTreeSet<String> = reviews.iter().map(Review::text).collect();
        assert!(texts.len() > 3950, "{} distinct", texts.len());
        let words: BTreeSet<String> = texts
            .iter()
            .flat_map(|text| text.split_whitespace())
            .map(|word| word.trim_matches(['.', ',']).to_lowercase())
            .collect();
        assert!((400..900).contains(&words.len()), "{} words", words.len());
        let lengths: BTreeSet<usize> =
            texts.iter().map(|text| text.split_whitespace().count()).collect();
        assert!(lengths.len() > 25, "{lengths:?}");
    }

    #[test]
    fn openings_are_neutral() {
        let mut grammar = Grammar::new(4);
        for _ in 0..2000 {
            let opening = grammar.opening();
            for word in opening.prompt.split(' ') {
                assert_eq!(lexicon::worth(word), None, "{}", opening.prompt);
            }
        }
    }

    #[test]
    fn articles_follow_the_next_word() {
        assert_eq!(with_articles("it is a awful coat"), "it is an awful coat");
        assert_eq!(with_articles("it is a useful coat"), "it is a useful coat");
        assert_eq!(with_articles("a usual coat, a year"), "a usual coat, a year");
    }
}
