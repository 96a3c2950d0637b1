//! Completions of the first iterations and the newest, and those that answer the same prompt.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    journal::cut,
    watched::{Look, look, read_bounded},
};

/// Iterations that are kept from the beginning, and from the end.
const FIRST: usize = 3;
const NEWEST: usize = 9;
/// Files of an old run that are searched for a prompt of its first iterations.
const SEARCHED: usize = 500;
/// Completions that are kept of an iteration.
const ROWS: usize = 16;
/// Longer prompts and completions are cut.
const LONGEST_TEXT: usize = 4000;

/// One completion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    prompt: String,
    completion: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reward: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kl: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<bool>,
    /// Which weights sampled how many tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    versions: Vec<(u64, u64)>,
}

/// Completions of an iteration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Iteration {
    iteration: u64,
    rows: Vec<Sample>,
}

/// The same prompt, early and late.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Pair {
    before: Located,
    after: Located,
}

/// A completion, and the iteration it is of.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Located {
    iteration: u64,
    #[serde(flatten)]
    sample: Sample,
}

/// What `samples/` holds.
#[derive(Debug, Default)]
pub(super) struct Samples {
    folder: PathBuf,
    folder_look: Option<Look>,
    newest_look: Option<Look>,
    kept: BTreeMap<u64, Vec<Sample>>,
    /// Completions of the first iterations, by prompt.
    early: HashMap<String, Located>,
    /// The latest completions of those prompts.
    late: HashMap<String, Located>,
}

impl Samples {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, ..Self::default() }
    }

    /// Returns the iterations that were written since the last look.
    pub(super) fn poll(&mut self) -> Vec<Iteration> {
        let newest = self.kept.last_key_value().map(|(&iteration, _)| iteration);
        let newest_look = newest.and_then(|iteration| look(&self.path(iteration)));
        let folder_look = look(&self.folder);
        if (folder_look, newest_look) == (self.folder_look, self.newest_look) {
            return Vec::new();
        }
        self.folder_look = folder_look;
        // The newest again: the last look may have met half of it.
        let mut numbers = iterations(&self.folder);
        numbers.retain(|&number| newest.is_none_or(|newest| number >= newest));
        if numbers.len() > FIRST + SEARCHED {
            numbers.drain(FIRST..numbers.len() - SEARCHED);
        }
        let fresh: Vec<_> = numbers.into_iter().map(|number| self.read(number)).collect();
        self.newest_look =
            self.kept.last_key_value().and_then(|(&iteration, _)| look(&self.path(iteration)));
        fresh
    }

    /// Returns what is kept, in order.
    pub(super) fn iterations(&self) -> Vec<Iteration> {
        let iteration =
            |(&iteration, rows): (&u64, &Vec<Sample>)| Iteration { iteration, rows: rows.clone() };
        self.kept.iter().map(iteration).collect()
    }

    /// Returns prompts that were answered early and again later, the latest first.
    pub(super) fn pairs(&self) -> Vec<Pair> {
        let pair = |(prompt, after): (&String, &Located)| {
            Some(Pair { before: self.early.get(prompt)?.clone(), after: after.clone() })
        };
        let mut pairs: Vec<_> = self.late.iter().filter_map(pair).collect();
        pairs.sort_by(|one, other| {
            let key = |pair: &Pair| std::cmp::Reverse(pair.after.iteration);
            key(one)
                .cmp(&key(other))
                .then_with(|| one.before.sample.prompt.cmp(&other.before.sample.prompt))
        });
        pairs.truncate(ROWS);
        pairs
    }

    fn read(&mut self, iteration: u64) -> Iteration {
        let text = read_bounded(&self.path(iteration)).unwrap_or_default();
        let rows: Vec<Sample> = text.lines().filter_map(parse).take(ROWS).collect();
        let is_early = self.kept.range(..iteration).count() < FIRST;
        for sample in &rows {
            let located = Located { iteration, sample: sample.clone() };
            match self.early.get(&sample.prompt) {
                Some(early) if early.iteration < iteration => {
                    self.late.insert(sample.prompt.clone(), located);
                }
                None if is_early => {
                    self.early.insert(sample.prompt.clone(), located);
                }
                _ => {}
            }
        }
        self.kept.insert(iteration, rows.clone());
        if self.kept.len() > FIRST + NEWEST {
            let oldest = self.kept.keys().nth(FIRST).copied();
            oldest.and_then(|oldest| self.kept.remove(&oldest));
        }
        Iteration { iteration, rows }
    }

    fn path(&self, iteration: u64) -> PathBuf {
        self.folder.join(format!("iteration_{iteration}.jsonl"))
    }
}

fn parse(line: &str) -> Option<Sample> {
    let mut sample: Sample = serde_json::from_str(line).ok()?;
    sample.prompt = cut(&sample.prompt, LONGEST_TEXT);
    sample.completion = cut(&sample.completion, LONGEST_TEXT);
    Some(sample)
}

/// Returns the numbers of `iteration_N.jsonl` in order.
fn iterations(folder: &Path) -> Vec<u64> {
    let number = |entry: fs::DirEntry| -> Option<u64> {
        let name = entry.file_name();
        name.to_str()?.strip_prefix("iteration_")?.strip_suffix(".jsonl")?.parse().ok()
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbers: Vec<u64> = entries.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, iteration: u64, prompts: &[&str]) {
        let line = |prompt: &&str| {
            format!("{{\"prompt\":\"{prompt}\",\"completion\":\"{iteration}\",\"score\":0.5}}\n")
        };
        let rows: String = prompts.iter().map(line).collect();
        fs::write(folder.join(format!("iteration_{iteration}.jsonl")), rows).unwrap();
    }

    #[test]
    fn first_and_newest_iterations_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut samples = Samples::new(folder.path().to_owned());
        assert!(samples.poll().is_empty());
        (1..=20).for_each(|iteration| write(folder.path(), iteration, &["x"]));
        assert_eq!(samples.poll().len(), 20);
        assert!(samples.poll().is_empty());
        let kept: Vec<u64> = samples.iterations().iter().map(|one| one.iteration).collect();
        assert_eq!(kept, [1, 2, 3, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        write(folder.path(), 21, &["x"]);
        assert!(samples.poll().iter().any(|one| one.iteration == 21));
    }

    #[test]
    fn the_same_prompt_is_found_early_and_late() {
        let folder = tempfile::tempdir().unwrap();
        let mut samples = Samples::new(folder.path().to_owned());
        let prompts: [&[&str]; 5] = [&["a", "b"], &["c"], &["d"], &["b", "e"], &["e", "a"]];
        for (iteration, prompts) in (1..).zip(prompts) {
            write(folder.path(), iteration, prompts);
        }
        samples.poll();
        let found: Vec<_> = samples
            .pairs()
            .iter()
            .map(|pair| {
                (pair.after.sample.prompt.clone(), pair.before.iteration, pair.after.iteration)
            })
            .collect();
        assert_eq!(found, [("a".to_owned(), 1, 5), ("b".to_owned(), 1, 4)]);
    }

    #[test]
    fn a_file_that_was_half_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut samples = Samples::new(folder.path().to_owned());
        fs::write(folder.path().join("iteration_1.jsonl"), "{\"prompt\":\"a\",\"comp").unwrap();
        assert!(samples.poll()[0].rows.is_empty());
        write(folder.path(), 1, &["a"]);
        assert_eq!(samples.poll()[0].rows.len(), 1);
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "y".repeat(2 * LONGEST_TEXT);
        let sample = parse(&format!(r#"{{"prompt":"a","completion":"{long}"}}"#)).unwrap();
        assert_eq!(sample.completion.len(), LONGEST_TEXT + "…".len());
    }
}
