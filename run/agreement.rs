//! How far two lists of log-probabilities are apart.

use serde::Serialize;

/// How far two models are apart on the same tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Mean |difference| of log-probs (nats).
    pub mean: f64,
    /// Largest |difference| (nats).
    pub max: f64,
}

impl Agreement {
    /// Compares log-probs token by token. One that is no number, lists of unlike lengths, and nothing to compare make both
    /// results NaN: no agreement.
    pub fn between<'a>(
        one: impl IntoIterator<Item = &'a f32>,
        other: impl IntoIterator<Item = &'a f32>,
    ) -> Self {
        let (one, other): (Vec<_>, Vec<_>) =
            (one.into_iter().collect(), other.into_iter().collect());
        if one.len() != other.len() || one.is_empty() {
            return Self { mean: f64::NAN, max: f64::NAN };
        }
        let difference = |(a, b): (&&f32, &&f32)| (f64::from(**a) - f64::from(**b)).abs();
        let differences: Vec<f64> = one.iter().zip(&other).map(difference).collect();
        let count = differences.len() as f64;
        // f64::max would pass over NaN.
        let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
        Self {
            mean: differences.iter().sum::<f64>() / count,
            max: differences.into_iter().fold(0.0, larger),
        }
    }

    /// Says whether the mean is within a threshold. NaN is within none.
    pub fn is_within(&self, threshold: f64) -> bool {
        self.mean <= threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_largest_difference_are_absolute() {
        let found = Agreement::between(&[-1.0, -2.0], &[-1.5, -1.0]);
        assert_eq!(found, Agreement { mean: 0.75, max: 1.0 });
        assert!(found.is_within(0.75) && !found.is_within(0.7));
    }

    #[test]
    fn a_difference_that_is_no_number_is_no_agreement() {
        let found = Agreement::between(&[f32::NAN, -1.0], &[-1.0, -1.0]);
        assert!(found.max.is_nan() && !found.is_within(f64::INFINITY));
    }

    #[test]
    fn log_probs_that_did_not_come_are_no_agreement() {
        for (one, other) in [(&[][..], &[][..]), (&[-1.0], &[-1.0, -1.0]), (&[], &[-1.0])] {
            assert!(!Agreement::between(one, other).is_within(f64::INFINITY));
        }
    }
}
