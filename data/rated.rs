//! Completions to be rated, with what they are rated.

use serde_json::{Map, Value};

use super::{
    ATTRIBUTES, Columns, DataConfig, Error, SftLayout, SftSample, TextEncoder,
    columns::FoundColumns,
    encoder::{Fit, Tokens},
    reader::open_rows,
    row::{Content, Place, Row},
    sample::{Sample, judged},
};

/// A completion with its ratings.
///
/// From `messages`, from `prompt` and `completion` (or HelpSteer's `response`), or from `text`; and a column with a number
/// for each attribute that is rated.
#[derive(Clone, Debug, PartialEq)]
pub struct RatedSample {
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// A rating for each attribute of [`Columns::attributes`], or for the usual ones where that is empty; `None` where the
    /// row has none. At least one is there.
    pub ratings: Vec<Option<f32>>,
}

/// A completion that is to be rated.
///
/// As a [`RatedSample`], but for the ratings.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedSample {
    /// Prompt and completion.
    pub tokens: Vec<u32>,
    /// The row as it was.
    pub columns: Map<String, Value>,
    /// Where it comes from.
    pub place: Place,
}

/// The columns of a rated completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RatedLayout {
    content: SftLayout,
    attributes: Vec<String>,
}

impl Sample for RatedSample {
    type Layout = RatedLayout;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<RatedLayout, Error> {
        let attributes = match columns.attributes.is_empty() {
            true => ATTRIBUTES.map(String::from).to_vec(),
            false => columns.attributes.clone(),
        };
        Ok(RatedLayout { content: JudgedSample::layout(found, columns)?, attributes })
    }

    fn of(
        mut row: Row,
        layout: &RatedLayout,
        encoder: &TextEncoder<'_>,
    ) -> Result<(Self, Fit), String> {
        let ratings = layout.attributes.iter().map(|attribute| row.take_number(attribute));
        let ratings: Vec<Option<f32>> = ratings.collect::<Result<_, _>>()?;
        if ratings.iter().all(Option::is_none) {
            return Err("has no rating".into());
        }
        let (tokens, fit) = sequence(row, &layout.content, encoder)?;
        Ok((Self { tokens, ratings }, fit))
    }
}

impl Sample for JudgedSample {
    type Layout = SftLayout;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<SftLayout, Error> {
        let mut columns = columns.clone();
        let has_completion = found.optional("completion", columns.completion.as_ref())?.is_some();
        if !has_completion && found.has("response") {
            columns.completion = Some("response".into());
        }
        SftSample::layout(found, &columns)
    }

    fn of(row: Row, layout: &SftLayout, encoder: &TextEncoder<'_>) -> Result<(Self, Fit), String> {
        let Row { place, columns } = row.clone();
        let (tokens, fit) = sequence(row, layout, encoder)?;
        Ok((Self { tokens, columns, place }, fit))
    }
}

/// Encodes what is judged, as pairs are for a reward model.
fn sequence(
    mut row: Row,
    layout: &SftLayout,
    encoder: &TextEncoder<'_>,
) -> Result<(Vec<u32>, Fit), String> {
    let (prompt, completion) = match layout {
        SftLayout::Text(text) => (None, Content::Text(row.take_text(text)?)),
        SftLayout::Messages(messages) => (None, Content::Messages(row.take_messages(messages)?)),
        SftLayout::Completion(prompt, completion) => {
            (Some(row.take_content(prompt)?), row.take_content(completion)?)
        }
    };
    let mut tokens: Tokens = judged(prompt, completion, encoder)?;
    let fit = encoder.fit(&mut tokens)?;
    match tokens.ids.is_empty() {
        true => Err("has no tokens".into()),
        false => Ok((tokens.ids, fit)),
    }
}

/// Returns which of the usual attributes the files to train on rate, in the usual order. A column counts where a row has
/// something in it.
///
/// # Errors
/// When a file cannot be read or is broken.
pub fn rated_attributes(config: &DataConfig) -> Result<Vec<String>, Error> {
    let mut left = config.train_rows.unwrap_or(usize::MAX);
    let mut rated = [false; ATTRIBUTES.len()];
    for file in &config.train {
        for row in open_rows(file)?.take(left) {
            let row = row?;
            left -= 1;
            for (name, rated) in ATTRIBUTES.iter().zip(&mut rated) {
                *rated |= row.columns.get(*name).is_some_and(|value| !value.is_null());
            }
        }
    }
    let names = ATTRIBUTES.iter().zip(rated).filter(|(_, rated)| *rated);
    Ok(names.map(|(name, _)| name.to_string()).collect())
}
