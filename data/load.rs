//! Files into samples.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{
    DataConfig, Error, Report, Row, Sample, TextEncoder, columns::FoundColumns, encoder::Fit,
    open_rows,
};

/// Samples, in the order of the rows, and what became of the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded<S> {
    /// At least one.
    pub samples: Vec<S>,
    /// How many rows could be used, and why others could not.
    pub report: Report,
}

/// Reads the files to train on.
///
/// # Errors
/// When a file cannot be read, is broken, or lacks a column; and when no row is left.
pub fn load_train<S: Sample>(
    config: &DataConfig,
    encoder: &TextEncoder<'_>,
) -> Result<Loaded<S>, Error> {
    load(config, &config.train, config.train_rows, encoder)
}

/// Reads the files to measure on; `None` where there are none.
///
/// # Errors
/// As [`load_train`].
pub fn load_eval<S: Sample>(
    config: &DataConfig,
    encoder: &TextEncoder<'_>,
) -> Result<Option<Loaded<S>>, Error> {
    match config.eval.is_empty() {
        true => Ok(None),
        false => load(config, &config.eval, config.eval_rows, encoder).map(Some),
    }
}

fn load<S: Sample>(
    config: &DataConfig,
    files: &[PathBuf],
    limit: Option<usize>,
    encoder: &TextEncoder<'_>,
) -> Result<Loaded<S>, Error> {
    let mut loaded = Loaded { samples: Vec::new(), report: Report::default() };
    for file in files {
        let left = limit.unwrap_or(usize::MAX) - loaded.report.rows;
        if left > 0 {
            load_file(config, file, left, encoder, &mut loaded)?;
        }
    }
    match loaded.samples.is_empty() {
        true => Err(Error::NothingLeft(loaded.report.to_string())),
        false => Ok(loaded),
    }
}

fn load_file<S: Sample>(
    config: &DataConfig,
    file: &Path,
    limit: usize,
    encoder: &TextEncoder<'_>,
    loaded: &mut Loaded<S>,
) -> Result<(), Error> {
    let mut rows = open_rows(file)?.take(limit);
    let mut layout = None;
    loop {
        let part: Vec<Row> = rows.by_ref().take(S::ROWS_AT_A_TIME).collect::<Result<_, _>>()?;
        if part.is_empty() {
            break;
        }
        let layout = match &layout {
            Some(layout) => layout,
            None => layout.insert(S::layout(&FoundColumns::of(file, &part), &config.columns)?),
        };
        let make = |row: Row| (row.place.clone(), S::of(row, layout, encoder));
        let made: Vec<_> = part.into_par_iter().map(make).collect();
        for (place, sample) in made {
            match sample {
                Ok((sample, fit)) => {
                    loaded.samples.push(sample);
                    loaded.report.use_row(matches!(fit, Fit::Cut));
                }
                Err(reason) => loaded.report.refuse_row(place, reason),
            }
        }
    }
    if layout.is_none() {
        return Err(Error::File { path: file.into(), message: "has no rows".into() });
    }
    Ok(())
}
