//! What a data set holds, before a run finds out: its schema, unusable rows, lengths, duplicates, overlaps.
//!
//! Files are read row by row. What is kept of each row is two hashes and its lengths.

mod lengths;
mod probe;
mod seen;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use serde::Serialize;

pub use lengths::Lengths;
use probe::Probe;
pub use seen::Overlap;
use seen::Seen;

use super::{
    Error, Example, Place, Reading, Report, Row, Schema, Task, TextEncoder,
    examples::{Examples, Group},
};

/// How many rows are encoded at a time, on all cores.
const CHUNK: usize = 1024;

/// How data are looked at.
pub struct CheckOptions<'a> {
    /// How rows are read.
    pub reading: Reading,
    /// The command that the data are for. Default: what the schema is most likely for.
    pub task: Option<Task>,
    /// What texts are encoded with; without it no lengths are known, nor what a chat template does not take.
    pub encoder: Option<TextEncoder<'a>>,
}

/// What there is to say of some files.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Each file by itself.
    pub files: Vec<FileCheck>,
    /// What each file has in common with those before it, where it has something.
    pub overlaps: Vec<Overlap>,
}

/// What there is to say of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileCheck {
    /// The file.
    pub file: PathBuf,
    /// The schema of its rows.
    pub schema: &'static str,
    /// The command it was looked at for.
    pub task: Option<Task>,
    /// Whether that command's loader reads it as it is; otherwise it is looked at as it would be converted.
    pub is_direct: bool,
    /// Rows that were read.
    pub rows: usize,
    /// Rows that training would use.
    pub usable: usize,
    /// Rows that it would not use, by reason.
    pub refused: Vec<Refused>,
    /// Lines that are not even rows. A run refuses a file with one; so does a conversion.
    pub broken: usize,
    /// The first broken line.
    pub first_broken: Option<String>,
    /// Usable rows in which a prompt, a completion or a turn holds nothing but white space.
    pub blank: usize,
    /// Examples that came before, to the letter; columns that training does not look at aside.
    pub duplicates: usize,
    /// Examples whose prompt came before.
    pub duplicate_prompts: usize,
    /// The longest length that was allowed (tokens).
    pub max_tokens: Option<usize>,
    /// Usable rows that would be cut to it.
    pub cut: usize,
    /// Lengths of the rows before anything is cut (tokens).
    pub lengths: Vec<Lengths>,
}

/// Rows that cannot be used for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Why.
    pub reason: String,
    /// How many.
    pub rows: usize,
    /// The first few places.
    pub first: Vec<String>,
}

impl FileCheck {
    /// Returns how many rows a run or a conversion would get out of the file: none, where it has a broken line.
    pub fn left(&self) -> usize {
        if self.broken > 0 { 0 } else { self.usable }
    }
}

/// Looks at files.
///
/// # Errors
/// When one cannot be read, is of no known schema, or lacks a column. Rows and lines that cannot be used are part of the
/// answer.
pub fn check(files: &[PathBuf], options: &CheckOptions<'_>) -> Result<Check, Error> {
    let mut check = Check { files: Vec::new(), overlaps: Vec::new() };
    let mut before: Vec<Seen> = Vec::new();
    for file in files {
        let (found, seen) = check_file(file, options)?;
        check.files.push(found);
        check.overlaps.extend(before.iter().filter_map(|earlier| seen.overlap(earlier)));
        before.push(seen);
    }
    Ok(check)
}

fn check_file(file: &Path, options: &CheckOptions<'_>) -> Result<(FileCheck, Seen), Error> {
    let mut examples = Examples::open(file, &options.reading)?;
    let schema = examples.schema();
    let task = options.task.or(Some(schema.task()));
    let is_direct = task.is_some_and(|task| schema.is_read_by(task));
    let mut names = Names::default();
    if is_direct && options.encoder.is_some() {
        names = Names::of(&mut examples);
        examples = Examples::open(file, &options.reading)?;
    }
    let probe = match (task, &options.encoder) {
        (Some(task), Some(encoder)) => {
            let direct = is_direct.then_some(names.0.as_slice());
            Some(Probe::new(task, file, direct, encoder)?)
        }
        _ => None,
    };
    let mut looking = Looking {
        task,
        is_direct,
        probe,
        report: Report::default(),
        seen: Seen::new(file),
        broken: 0,
        first_broken: None,
        blank: 0,
    };
    loop {
        let chunk = looking.chunk(&mut examples)?;
        if chunk.is_empty() {
            break;
        }
        looking.groups(chunk);
    }
    Ok(looking.into_check(file, schema, options))
}

/// The names of a file's columns.
#[derive(Default)]
struct Names(Vec<String>);

impl Names {
    fn of(examples: &mut Examples) -> Self {
        let (mut names, mut seen) = (Vec::new(), HashSet::new());
        while let Some(row) = examples.next_row() {
            // A broken line is counted when the rows are looked at.
            for name in row.into_iter().flat_map(|row| row.columns) {
                if seen.insert(name.0.clone()) {
                    names.push(name.0);
                }
            }
        }
        Self(names)
    }
}

/// A file that is being looked at.
struct Looking<'a> {
    task: Option<Task>,
    is_direct: bool,
    probe: Option<Probe<'a>>,
    report: Report,
    seen: Seen,
    broken: usize,
    first_broken: Option<String>,
    blank: usize,
}

impl Looking<'_> {
    /// Reads some examples; none at the end of the file.
    fn chunk(&mut self, examples: &mut Examples) -> Result<Vec<Group>, Error> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            match examples.next() {
                Some(Ok(group)) => chunk.push(group),
                Some(Err(error @ Error::Line { .. })) => {
                    self.broken += 1;
                    self.first_broken.get_or_insert_with(|| error.to_string());
                }
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(chunk)
    }

    fn groups(&mut self, groups: Vec<Group>) {
        let places: Vec<Vec<Place>> = groups.iter().map(|group| group.places().collect()).collect();
        let (mut rows, mut examples) = (Vec::new(), Vec::new());
        for group in groups {
            rows.push(group.rows);
            examples.push(group.example);
        }
        let probed = match &mut self.probe {
            Some(probe) => probe.look(rows, &examples),
            None => examples.iter().map(|example| self.fits_form(example)).collect(),
        };
        for ((places, example), probed) in places.into_iter().zip(examples).zip(probed) {
            let used = example.and_then(|example| Ok((example, probed?)));
            match used {
                Ok((example, cut)) => {
                    self.blank += usize::from(example.has_blank());
                    self.seen.add(&example);
                    places.iter().for_each(|_| self.report.use_row(cut));
                }
                Err(reason) => {
                    let refuse = |place| self.report.refuse_row(place, reason.clone());
                    places.into_iter().for_each(refuse);
                }
            }
        }
    }

    /// Says, where nothing can be encoded, whether an example has what the command needs. Nothing is cut.
    fn fits_form(&self, example: &Result<Example, String>) -> Result<bool, String> {
        match (self.task, example) {
            (Some(task), Ok(example)) => task.form().write(example.clone()).map(|_| false),
            _ => Ok(false),
        }
    }

    fn into_check(
        self,
        file: &Path,
        schema: Schema,
        options: &CheckOptions<'_>,
    ) -> (FileCheck, Seen) {
        let refused = |unusable: super::Unusable| Refused {
            reason: unusable.reason,
            rows: unusable.rows,
            first: unusable.first.iter().map(Place::to_string).collect(),
        };
        let check = FileCheck {
            file: file.into(),
            schema: schema.name(),
            task: self.task,
            is_direct: self.is_direct,
            rows: self.report.rows,
            usable: self.report.used,
            cut: self.report.cut,
            refused: self.report.unusable.into_iter().map(refused).collect(),
            broken: self.broken,
            first_broken: self.first_broken,
            blank: self.blank,
            duplicates: self.seen.duplicates(),
            duplicate_prompts: self.seen.duplicate_prompts(),
            max_tokens: options.encoder.as_ref().map(TextEncoder::max_tokens),
            lengths: self.probe.map(Probe::lengths).unwrap_or_default(),
        };
        (check, self.seen)
    }
}

/// Takes a row for the rows of a file that has it alone.
fn one(mut rows: Vec<Row>) -> Option<Row> {
    rows.pop()
}

#[cfg(test)]
mod tests;
