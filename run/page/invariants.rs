//! What was checked on the way, and whether it held.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{curves::Row, journal::Entry};

const PREFIX: &str = "invariant/";
/// More than this are none of ours.
const MOST: usize = 128;

/// The record of each invariant, by name.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Invariants(BTreeMap<String, Record>);

/// How often an invariant was checked, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Record {
    /// Steps in which it was checked.
    pub(super) checked: u64,
    /// Steps in which it did not hold.
    pub(super) broken: u64,
    /// The last such step.
    pub(super) last_broken: Option<u64>,
    /// What the journal last said about it.
    pub(super) said: Option<String>,
}

impl Invariants {
    /// Counts the checks of a step.
    pub(super) fn count(&mut self, row: &Row) {
        for (name, value) in &row.metrics {
            let Some(name) = name.strip_prefix(PREFIX) else { continue };
            let Some(record) = self.record(name) else { continue };
            record.checked += 1;
            if *value != 0.0 {
                record.broken += 1;
                record.last_broken = Some(row.step);
            }
        }
    }

    /// Keeps what the journal says about an invariant.
    pub(super) fn hear(&mut self, entry: &Entry) {
        let Some(name) = entry.name.as_deref().filter(|_| entry.is_warning()) else { return };
        let name = name.strip_prefix(PREFIX).unwrap_or(name);
        if let Some(record) = self.record(name) {
            record.said = Some(entry.text.clone());
        }
    }

    /// Returns the records in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.0.iter().map(|(name, record)| (name.as_str(), record))
    }

    fn record(&mut self, name: &str) -> Option<&mut Record> {
        if self.0.len() >= MOST && !self.0.contains_key(name) {
            return None;
        }
        Some(self.0.entry(name.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_counted_where_they_were_made() {
        let mut invariants = Invariants::default();
        for line in [
            r#"{"step":1,"invariant/first_ratio":0,"invariant/finite":0}"#,
            r#"{"step":2,"invariant/first_ratio":1}"#,
            r#"{"step":3,"invariant/first_ratio":0,"loss":1}"#,
        ] {
            invariants.count(&Row::parse(line).unwrap());
        }
        let said = r#"{"kind":"warning","step":2,"name":"first_ratio","text":"it is 1.2"}"#;
        invariants.hear(&Entry::parse(0, said).unwrap());
        let records: Vec<_> =
            invariants.iter().map(|(name, record)| (name, record.clone())).collect();
        let finite = Record { checked: 1, ..Record::default() };
        let ratio = Record {
            checked: 3,
            broken: 1,
            last_broken: Some(2),
            said: Some("it is 1.2".to_owned()),
        };
        assert_eq!(records, [("finite", finite), ("first_ratio", ratio)]);
    }
}
