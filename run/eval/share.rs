//! A share of trials, and how sure it is.

use serde::Serialize;

/// The quantile of the normal distribution that leaves 2.5% above it.
const Z: f64 = 1.959_963_984_540_054;

/// A share of independent trials with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The share.
    pub share: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// Of how many trials.
    pub trials: usize,
}

impl Share {
    /// Returns the share of the trials' sum, at least one trial of 0 to 1 each, with Wilson's score interval (1927), which
    /// holds at 0 and 1, too, and is too wide, never too narrow, where trials lie between.
    pub fn of(trials: &[f64]) -> Self {
        let count = trials.len() as f64;
        let share = trials.iter().sum::<f64>() / count;
        let square = Z * Z / count;
        let centre = (share + square / 2.0) / (1.0 + square);
        let half =
            Z / (1.0 + square) * (share * (1.0 - share) / count + square / (4.0 * count)).sqrt();
        Self {
            share,
            low: (centre - half).max(0.0),
            high: (centre + half).min(1.0),
            trials: trials.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4
    }

    #[test]
    fn intervals_are_wilsons() {
        // By hand: centre 0.9921 / 1.3841, half 1.9600 / 1.3841 x 0.16.
        let share = Share::of(&[1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
        assert!(close(share.low, 0.4902) && close(share.high, 0.9433), "{share:?}");
        assert_eq!((share.share, share.trials), (0.8, 10));
        let none = Share::of(&[0.0; 10]);
        assert!(close(none.low, 0.0) && close(none.high, 0.2775), "{none:?}");
    }

    #[test]
    fn a_tie_counts_half() {
        assert_eq!(Share::of(&[1.0, 0.5, 0.0]).share, 0.5);
    }
}
