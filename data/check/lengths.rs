//! How long the samples are.

use serde::Serialize;

/// The distribution of a length (tokens).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// Of what.
    pub what: &'static str,
    /// The mean.
    pub mean: f64,
    /// Half are at most so long.
    pub p50: usize,
    /// 95 of 100 are at most so long.
    pub p95: usize,
    /// The longest.
    pub max: usize,
}

impl Lengths {
    /// Returns the distribution of some lengths, at least one: percentiles by nearest rank.
    pub(super) fn of(what: &'static str, mut lengths: Vec<usize>) -> Option<Self> {
        lengths.sort_unstable();
        let max = *lengths.last()?;
        let count = lengths.len();
        let rank = |percent: usize| lengths[(percent * count).div_ceil(100).max(1) - 1];
        let mean = lengths.iter().sum::<usize>() as f64 / count as f64;
        Some(Self { what, mean, p50: rank(50), p95: rank(95), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let lengths = Lengths::of("x", (1..=20).rev().collect()).unwrap();
        let wanted = Lengths { what: "x", mean: 10.5, p50: 10, p95: 19, max: 20 };
        assert_eq!(lengths, wanted);
        let one = Lengths::of("x", vec![7]).unwrap();
        assert_eq!((one.mean, one.p50, one.p95, one.max), (7.0, 7, 7, 7));
        assert_eq!(Lengths::of("x", Vec::new()), None);
    }
}
