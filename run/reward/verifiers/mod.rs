//! Verifiers: what a completion is worth by a rule.

mod format;
mod json_schema;
mod length;
mod matches;
mod numeric;
mod regex;

pub(super) use format::Format;
pub(super) use json_schema::JsonSchema;
pub(super) use length::{Length, Nothing};
pub(super) use matches::{ExactMatch, PositionMatch};
pub(super) use numeric::Numeric;
pub(super) use regex::{Pattern, Regex};

use crate::trainer::reward::Reward;

/// Returns 1 for what is right, 0 for what is not.
fn verdict(right: bool) -> Reward {
    Reward::Score(f32::from(u8::from(right)))
}
