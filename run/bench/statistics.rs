//! The middle and the spread of a few measurements.

use serde::{Deserialize, Serialize};

/// Measurements of one thing, in the order they were made: at least one, all finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Given", into = "Told")]
pub struct Measurements(Vec<f64>);

/// What is read.
#[derive(Deserialize)]
struct Given {
    values: Vec<f64>,
}

/// What is written: the values, and what is mostly asked of them.
#[derive(Serialize)]
struct Told {
    median: f64,
    lowest: f64,
    highest: f64,
    values: Vec<f64>,
}

impl Measurements {
    /// Returns the middle one; of an even number, what is halfway between two.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
        f64::midpoint(sorted[low], sorted[high])
    }

    /// Returns the smallest and the largest.
    pub fn spread(&self) -> (f64, f64) {
        let sorted = self.sorted();
        (sorted[0], sorted[sorted.len() - 1])
    }

    /// Adds later ones.
    pub fn extend(&mut self, later: Self) {
        self.0.extend(later.0);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl TryFrom<Vec<f64>> for Measurements {
    type Error = &'static str;

    fn try_from(measured: Vec<f64>) -> Result<Self, Self::Error> {
        if measured.is_empty() {
            return Err("nothing was measured");
        }
        if measured.iter().any(|value| !value.is_finite()) {
            return Err("a measurement is not finite");
        }
        Ok(Self(measured))
    }
}

impl TryFrom<Given> for Measurements {
    type Error = &'static str;

    fn try_from(given: Given) -> Result<Self, Self::Error> {
        given.values.try_into()
    }
}

impl From<Measurements> for Told {
    fn from(measured: Measurements) -> Self {
        let (lowest, highest) = measured.spread();
        Self { median: measured.median(), lowest, highest, values: measured.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Measurements {
        values.to_vec().try_into().unwrap()
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(of(&[4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        assert_eq!(of(&[4.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0]).spread(), (1.0, 4.0));
    }

    #[test]
    fn what_is_written_reads_back() {
        let text = serde_json::to_string(&of(&[3.0, 1.0])).unwrap();
        assert_eq!(text, r#"{"median":2.0,"lowest":1.0,"highest":3.0,"values":[3.0,1.0]}"#);
        assert_eq!(serde_json::from_str::<Measurements>(&text).unwrap(), of(&[3.0, 1.0]));
    }

    #[test]
    fn nothing_has_no_middle() {
        assert!(Measurements::try_from(vec![]).is_err());
        assert!(Measurements::try_from(vec![1.0, f64::NAN]).is_err());
        assert!(serde_json::from_str::<Measurements>(r#"{"values":[]}"#).is_err());
    }
}
