//! The examples of a file, one after the other, whatever its schema.

use std::{collections::VecDeque, path::Path};

use super::{
    Error, Example, Place, Row, Schema,
    reader::{Rows, open_rows},
};

/// From how many rows a file's schema is told.
const SAMPLED: usize = 100;

/// How a file's rows are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Their schema. Default: the one that most of the first 100 rows look like.
    pub schema: Option<Schema>,
    /// Columns that go by other names than the schema's: first the schema's, then the file's.
    pub columns: Vec<(String, String)>,
    /// Columns with ratings. Default: those that are called like one of the usual attributes.
    pub attributes: Vec<String>,
}

/// The rows of one example and what they mean.
pub(super) struct Group {
    /// The rows, as they are in the file but for the names of columns.
    pub(super) rows: Vec<Row>,
    /// What they mean, or why they mean nothing.
    pub(super) example: Result<Example, String>,
}

/// The examples of a file.
pub(super) struct Examples {
    schema: Schema,
    renaming: Vec<(String, String)>,
    attributes: Vec<String>,
    /// Rows that were read to tell the schema.
    ahead: VecDeque<Result<Row, Error>>,
    rows: Rows,
}

impl Examples {
    /// Opens a file and tells its schema.
    ///
    /// # Errors
    /// When it cannot be read, or is of no schema that is known.
    pub(super) fn open(path: &Path, reading: &Reading) -> Result<Self, Error> {
        let mut rows = open_rows(path)?;
        let ahead: VecDeque<_> = rows.by_ref().take(SAMPLED).collect();
        let (renaming, attributes) = (reading.columns.clone(), reading.attributes.clone());
        let mut opened = Self { schema: Schema::Text, renaming, attributes, ahead, rows };
        opened.rename_ahead();
        opened.schema = match reading.schema {
            Some(schema) => schema,
            None => opened.told(path)?,
        };
        Ok(opened)
    }

    /// Returns the schema by which rows are read.
    pub(super) fn schema(&self) -> Schema {
        self.schema
    }

    /// Returns the next row, with its columns named as the schema has them.
    pub(super) fn next_row(&mut self) -> Option<Result<Row, Error>> {
        if let Some(row) = self.ahead.pop_front() {
            return Some(row);
        }
        let mut row = self.rows.next()?;
        if let Ok(row) = &mut row {
            rename(row, &self.renaming);
        }
        Some(row)
    }

    fn rename_ahead(&mut self) {
        for row in self.ahead.iter_mut().flatten() {
            rename(row, &self.renaming);
        }
    }

    /// Returns the schema of most of the first rows; of two that are as frequent, the one that comes first.
    fn told(&self, path: &Path) -> Result<Schema, Error> {
        let rows: Vec<&Row> = self.ahead.iter().flatten().collect();
        let schemas: Vec<Schema> = rows.iter().filter_map(|row| Schema::of(row)).collect();
        let count = |schema: Schema| schemas.iter().filter(|other| **other == schema).count();
        let most = schemas.iter().map(|schema| count(*schema)).max();
        if let Some(schema) = schemas.iter().find(|schema| Some(count(**schema)) == most) {
            return Ok(*schema);
        }
        let message = match rows.first() {
            Some(row) => {
                let columns: Vec<_> = row.columns.keys().map(|name| format!("{name:?}")).collect();
                format!("is of no schema that is known; its columns are {}", columns.join(", "))
            }
            None => "has no rows".into(),
        };
        match (rows.is_empty(), self.ahead.iter().find_map(|row| row.as_ref().err())) {
            (true, Some(broken)) => Err(Error::File {
                path: path.into(),
                message: format!("has no row that can be read: {broken}"),
            }),
            _ => Err(Error::File { path: path.into(), message }),
        }
    }
}

impl Iterator for Examples {
    type Item = Result<Group, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rows = Vec::with_capacity(self.schema.rows());
        while rows.len() < self.schema.rows() {
            match self.next_row() {
                Some(Ok(row)) => rows.push(row),
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        if rows.is_empty() {
            return None;
        }
        let example = self.schema.read(rows.clone());
        let example = example.and_then(|example| example.rated_by(&self.attributes));
        Some(Ok(Group { rows, example }))
    }
}

impl Group {
    /// Returns where the rows stand.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        self.rows.iter().map(|row| row.place.clone())
    }
}

fn rename(row: &mut Row, renaming: &[(String, String)]) {
    for (ours, theirs) in renaming {
        if let Some(value) = row.columns.shift_remove(theirs) {
            row.columns.insert(ours.clone(), value);
        }
    }
}
