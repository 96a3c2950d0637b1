//! What an evaluation came to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{CurvePoint, Share};
use crate::config::Measure;

/// What an evaluation came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// What was measured.
    pub measure: Measure,
    /// Of which model.
    pub model: String,
    /// Against which other one.
    pub against: Option<String>,
    /// What became of the rows.
    pub data: String,
    /// How many rows, pairs or prompts were measured on.
    pub rows: usize,
    /// Completions of each prompt; 0 where nothing was sampled.
    pub samples_per_prompt: usize,
    /// The share that the measure is about, with its interval.
    pub share: Option<Share>,
    /// Other numbers, by name.
    pub values: BTreeMap<&'static str, f64>,
    /// Of best-of-n.
    pub curve: Vec<CurvePoint>,
}

impl EvalReport {
    /// Says in a line what was measured.
    pub fn title(&self) -> String {
        let against = self.against.as_ref().map(|other| format!(" against {other}"));
        format!("{} of {}{}", self.measure.name(), self.model, against.unwrap_or_default())
    }
}
