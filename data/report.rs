//! What became of the rows: none disappears without a word.

use std::fmt;

use super::row::Place;

/// How many places a report names for each reason.
const NAMED: usize = 3;

/// Counts the rows that were used and those that could not be, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows that were read.
    pub rows: usize,
    /// Rows that became samples.
    pub used: usize,
    /// Of these, how many were cut to the longest length.
    pub cut: usize,
    /// Rows that could not be used, in the order in which the reasons first came up.
    pub unusable: Vec<Unusable>,
}

/// Rows that could not be used for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Why.
    pub reason: String,
    /// How many.
    pub rows: usize,
    /// The first few.
    pub first: Vec<Place>,
}

impl Report {
    pub(super) fn use_row(&mut self, cut: bool) {
        self.rows += 1;
        self.used += 1;
        self.cut += usize::from(cut);
    }

    pub(super) fn refuse_row(&mut self, place: Place, reason: String) {
        self.rows += 1;
        let known = self.unusable.iter().position(|unusable| unusable.reason == reason);
        let index = known.unwrap_or_else(|| {
            self.unusable.push(Unusable { reason, rows: 0, first: Vec::new() });
            self.unusable.len() - 1
        });
        let unusable = &mut self.unusable[index];
        unusable.rows += 1;
        if unusable.first.len() < NAMED {
            unusable.first.push(place);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} rows used", self.used, self.rows)?;
        if self.cut > 0 {
            write!(f, ", {} of them cut", self.cut)?;
        }
        for unusable in &self.unusable {
            let places: Vec<String> = unusable.first.iter().map(Place::to_string).collect();
            let more = if unusable.rows > places.len() { ", ..." } else { "" };
            write!(
                f,
                "; {} not: {} ({}{more})",
                unusable.rows,
                unusable.reason,
                places.join(", ")
            )?;
        }
        Ok(())
    }
}
