//! One thing that was measured, and how two who measured the same compare.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Measurements;

/// What numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Tokens in a second.
    #[serde(rename = "tokens/s")]
    TokensPerSecond,
    /// Items in a second.
    #[serde(rename = "items/s")]
    ItemsPerSecond,
    /// 10^9 bytes in a second.
    #[serde(rename = "GB/s")]
    GigabytesPerSecond,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
}

impl Unit {
    /// Returns how people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokensPerSecond => "tokens/s",
            Self::ItemsPerSecond => "items/s",
            Self::GigabytesPerSecond => "GB/s",
            Self::Seconds => "s",
            Self::Microseconds => "us",
        }
    }

    /// Returns how the name of a row ends.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::TokensPerSecond => "_tokens_per_s",
            Self::ItemsPerSecond => "_items_per_s",
            Self::GigabytesPerSecond => "_gb_per_s",
            Self::Seconds => "_s",
            Self::Microseconds => "_us",
        }
    }

    /// Says whether it is a time, of which less is better.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Seconds | Self::Microseconds)
    }

    /// Returns how many times better the first is.
    pub fn advantage(self, ours: f64, theirs: f64) -> f64 {
        if self.is_time() { theirs / ours } else { ours / theirs }
    }
}

/// One thing that was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What, with its shape and unit: `decode_b32_tokens_per_s`.
    pub name: String,
    /// What the values count.
    pub unit: Unit,
    /// Each time.
    #[serde(flatten)]
    pub values: Measurements,
    /// What the machine could do at most, or in the shortest time, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
}

impl Row {
    /// Names and counts what was measured; `stem` is the name without its unit.
    ///
    /// # Errors
    /// When there is no value, or one that is not finite.
    pub fn new(stem: &str, unit: Unit, values: Vec<f64>, limit: Option<f64>) -> Result<Self> {
        let name = format!("{stem}{}", unit.suffix());
        let values = values.try_into().map_err(anyhow::Error::msg);
        Ok(Self { values: values.with_context(|| name.clone())?, name, unit, limit })
    }

    /// Returns the share of the limit that the median reaches.
    pub fn share(&self) -> Option<f64> {
        self.limit.map(|limit| self.unit.advantage(self.values.median(), limit))
    }

    /// Returns the name without its unit.
    pub fn stem(&self) -> &str {
        self.name.strip_suffix(self.unit.suffix()).unwrap_or(&self.name)
    }

    /// Returns how another one did the same, if it did: `static` of `decode_b32_static` beside `decode_b32`, and nothing
    /// for the very same name.
    pub fn variant<'a>(&self, other: &'a Self) -> Option<&'a str> {
        let rest = (self.unit == other.unit).then(|| other.stem().strip_prefix(self.stem()))??;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix('_') }
    }
}

/// Puts later rows behind earlier ones of the same name.
pub(super) fn merge(rows: &mut Vec<Row>, later: Vec<Row>) {
    for row in later {
        match rows.iter_mut().find(|known| known.name == row.name) {
            Some(known) => known.values.extend(row.values),
            None => rows.push(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(stem: &str, unit: Unit, values: &[f64], limit: Option<f64>) -> Row {
        Row::new(stem, unit, values.to_vec(), limit).unwrap()
    }

    #[test]
    fn a_share_is_of_the_most_or_of_the_least() {
        let rate = row("decode_b1", Unit::TokensPerSecond, &[50.0], Some(200.0));
        assert_eq!(rate.share(), Some(0.25));
        let time = row("refit", Unit::Microseconds, &[50.0], Some(10.0));
        assert_eq!(time.share(), Some(0.2));
        assert_eq!(row("refit", Unit::Seconds, &[50.0], None).share(), None);
    }

    #[test]
    fn a_variant_does_the_same_in_another_way() {
        let rate = |stem: &str| row(stem, Unit::TokensPerSecond, &[1.0], None);
        let ours = rate("decode_b3");
        assert_eq!(ours.variant(&rate("decode_b3")), Some(""));
        assert_eq!(ours.variant(&rate("decode_b3_static")), Some("static"));
        assert_eq!(ours.variant(&rate("decode_b32")), None);
        assert_eq!(ours.variant(&row("decode_b3", Unit::Seconds, &[1.0], None)), None);
    }

    #[test]
    fn later_values_of_a_name_join_the_earlier() {
        let mut rows = vec![row("a", Unit::Seconds, &[1.0], None)];
        merge(
            &mut rows,
            vec![row("b", Unit::Seconds, &[9.0], None), row("a", Unit::Seconds, &[2.0], None)],
        );
        assert_eq!(rows[0], row("a", Unit::Seconds, &[1.0, 2.0], None));
        assert_eq!(rows[1].name, "b_s");
    }

    #[test]
    fn a_row_reads_back_with_the_unit_of_its_name() {
        let text = r#"{"name":"ppo_iteration_s","unit":"s","values":[2,1.5]}"#;
        let read: Row = serde_json::from_str(text).unwrap();
        assert_eq!(read, row("ppo_iteration", Unit::Seconds, &[2.0, 1.5], None));
        assert!(serde_json::from_str::<Row>(&text.replace("\"s\"", "\"h\"")).is_err());
    }
}
