//! Prompts as they stand in their rows.

use serde_json::Value;

use super::{
    Columns, Error, PromptSample, Sample, TextEncoder, chat,
    columns::FoundColumns,
    encoder::Fit,
    row::{Place, Row},
};

/// A prompt that is talked about, not only continued: turns, no tokens.
///
/// From the columns of a [`PromptSample`]; text is what a user says.
#[derive(Clone, Debug, PartialEq)]
pub struct QuestionSample {
    /// Objects with `role` and `content`, at least one.
    pub turns: Vec<Value>,
    /// Where it comes from.
    pub place: Place,
}

impl Sample for QuestionSample {
    type Layout = String;

    fn layout(found: &FoundColumns<'_>, columns: &Columns) -> Result<String, Error> {
        PromptSample::layout(found, columns)
    }

    fn of(mut row: Row, prompt: &String, _: &TextEncoder<'_>) -> Result<(Self, Fit), String> {
        let turns = chat::messages(row.take_content(prompt)?, "user");
        Ok((Self { turns, place: row.place }, Fit::Whole))
    }
}
