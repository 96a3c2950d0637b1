//! The middle and the spread of a few measurements.

/// Measurements of one thing, in the order they were made; at least one.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Measurements(Vec<f64>);

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

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl From<Vec<f64>> for Measurements {
    /// # Panics
    /// When there is none.
    fn from(measured: Vec<f64>) -> Self {
        assert!(!measured.is_empty(), "something was measured");
        Self(measured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(Measurements::from(vec![4.0, 1.0, 2.0, 9.0]).median(), 3.0);
        assert_eq!(Measurements::from(vec![4.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Measurements::from(vec![4.0, 1.0, 2.0]).spread(), (1.0, 4.0));
    }
}
