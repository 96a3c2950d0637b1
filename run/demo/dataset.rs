//! The demo's files: what each stage learns from, held-out rows included.

use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Grammar, Review, Sentiment};

/// How many rows of each sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Reviews to learn to write from.
    pub reviews: usize,
    /// Preference pairs.
    pub pairs: usize,
    /// Openings to continue.
    pub prompts: usize,
    /// Held-out rows of each of these.
    pub held_out: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { reviews: 4000, pairs: 3000, prompts: 1000, held_out: 256 }
    }
}

/// Two continuations of one opening, of which the first is the more positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The more positive one.
    pub chosen: Review,
    /// The less positive one.
    pub rejected: Review,
}

/// Rows to learn from and rows held out. No row is in both, nor twice in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<T> {
    /// To learn from.
    pub train: Vec<T>,
    /// To measure with.
    pub held_out: Vec<T>,
}

/// Everything the demo's three stages read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoData {
    /// Reviews, half of them positive.
    pub reviews: Split<Review>,
    /// Preference pairs: the chosen one's sentiment is above the rejected one's.
    pub pairs: Split<Pair>,
    /// Neutral openings.
    pub prompts: Split<String>,
}

impl DemoData {
    /// Writes all rows from the grammar; the same seed gives the same rows.
    pub fn new(seed: u64, sizes: Sizes) -> Self {
        let mut grammar = Grammar::new(seed);
        let held_out = sizes.held_out;
        Self {
            reviews: split(held_out, sizes.reviews, || {
                let sentiment = grammar.sentiment();
                let review = grammar.review(sentiment);
                (review.text(), review)
            }),
            pairs: split(held_out, sizes.pairs, || {
                let pair = pair(&mut grammar);
                (pair.chosen.text() + &pair.rejected.text(), pair)
            }),
            prompts: split(held_out, sizes.prompts, || {
                let prompt = grammar.opening().prompt;
                (prompt.clone(), prompt)
            }),
        }
    }

    /// Returns every text to learn from, for a tokenizer.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.reviews.train.iter().map(Review::text)
    }

    /// Writes `{sft,pairs,prompts}{,_eval}.jsonl` and `corpus.txt` into a folder, which is made where missing.
    ///
    /// # Errors
    /// When a file cannot be written; it is named.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, WriteError> {
        fs::create_dir_all(folder).map_err(|source| WriteError::new(folder, source))?;
        let mut written = Vec::new();
        let mut lines = |name: &str, lines: Vec<String>| {
            let path = folder.join(name);
            write_lines(&path, &lines).map_err(|source| WriteError::new(&path, source))?;
            written.push(path);
            Ok(())
        };
        for (name, rows) in [
            ("sft", rows(&self.reviews, review_row)),
            ("pairs", rows(&self.pairs, pair_row)),
            ("prompts", rows(&self.prompts, |prompt| json!({ "prompt": prompt }))),
        ] {
            lines(&format!("{name}.jsonl"), rows.train)?;
            lines(&format!("{name}_eval.jsonl"), rows.held_out)?;
        }
        lines("corpus.txt", self.texts().collect())?;
        Ok(written)
    }
}

/// A file of the demo's data cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

impl WriteError {
    fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// Draws rows until there are enough distinct ones; the held-out ones come first.
fn split<T>(held_out: usize, train: usize, mut draw: impl FnMut() -> (String, T)) -> Split<T> {
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(held_out + train);
    while rows.len() < held_out + train {
        let (key, row) = draw();
        if seen.insert(key) {
            rows.push(row);
        }
    }
    let train = rows.split_off(held_out);
    Split { train, held_out: rows }
}

/// One opening, continued twice; each of the three orders of sentiments is as likely.
fn pair(grammar: &mut Grammar) -> Pair {
    use Sentiment::{Negative, Neutral, Positive};
    let orders = [(Positive, Negative), (Positive, Neutral), (Neutral, Negative)];
    let (better, worse) = orders[grammar.below(orders.len())];
    let opening = grammar.opening();
    Pair {
        chosen: grammar.continue_opening(&opening, better),
        rejected: grammar.continue_opening(&opening, worse),
    }
}

fn rows<T>(split: &Split<T>, row: impl Fn(&T) -> Value) -> Split<String> {
    let lines = |rows: &[T]| rows.iter().map(|each| row(each).to_string()).collect();
    Split { train: lines(&split.train), held_out: lines(&split.held_out) }
}

fn review_row(review: &Review) -> Value {
    json!({
        "prompt": review.prompt,
        "completion": review.completion,
        "label": review.sentiment(),
    })
}

fn pair_row(pair: &Pair) -> Value {
    json!({
        "prompt": pair.chosen.prompt,
        "chosen": pair.chosen.completion,
        "rejected": pair.rejected.completion,
    })
}

fn write_lines(path: &Path, lines: &[String]) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::File::create(path)?);
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Sizes = Sizes { reviews: 300, pairs: 200, prompts: 150, held_out: 50 };

    #[test]
    fn the_same_seed_gives_the_same_rows() {
        assert_eq!(DemoData::new(5, SMALL), DemoData::new(5, SMALL));
        assert_ne!(DemoData::new(5, SMALL), DemoData::new(6, SMALL));
    }

    #[test]
    fn held_out_rows_are_not_learned_from() {
        let data = DemoData::new(5, SMALL);
        assert_eq!((data.reviews.train.len(), data.reviews.held_out.len()), (300, 50));
        assert!(data.reviews.held_out.iter().all(|row| !data.reviews.train.contains(row)));
        assert!(data.prompts.held_out.iter().all(|row| !data.prompts.train.contains(row)));
    }

    #[test]
    fn the_chosen_one_of_a_pair_is_the_more_positive() {
        for pair in DemoData::new(7, SMALL).pairs.train {
            assert!(pair.chosen.sentiment() > pair.rejected.sentiment());
            assert_eq!(pair.chosen.prompt, pair.rejected.prompt);
        }
    }

    #[test]
    fn about_half_of_the_reviews_are_positive() {
        let data = DemoData::new(1, Sizes::default());
        let positive =
            data.reviews.train.iter().filter(|r| r.sentiment() == Sentiment::Positive).count();
        assert!((1850..2150).contains(&positive), "{positive} of 4000");
    }

    #[test]
    fn files_hold_one_json_object_per_line() {
        let folder = tempfile::tempdir().unwrap();
        let files = DemoData::new(5, SMALL).write(folder.path()).unwrap();
        assert_eq!(files.len(), 7);
        let text = fs::read_to_string(folder.path().join("pairs.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 200);
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            assert!(row["prompt"].is_string() && row["chosen"].as_str().unwrap().starts_with(' '));
        }
    }
}
