//! What the length of a completion costs; and a source that says nothing.

use anyhow::Result;

use crate::{
    run::reward::{Completion, Source},
    trainer::reward::Reward,
};

/// A penalty from -1 to 0 for tokens, the end token included.
#[derive(Clone, Copy, Debug)]
pub(in crate::run::reward) enum Length {
    /// Soft punishment of over-long completions.
    Overlong {
        /// Where it reaches -1.
        max: usize,
        /// How many tokens before that it begins.
        cache: usize,
    },
    /// The distance from a length.
    Target(usize),
}

impl Length {
    /// Returns what a completion of so many tokens earns.
    ///
    /// ```text
    /// 0                                  |y| <= max - cache
    /// ((max - cache) - |y|) / cache      max - cache < |y| <= max
    /// -1                                 max < |y|                  (Yu et al., 2025, equation 13)
    ///
    /// -min(1, ||y| - target| / target)                              a target
    /// ```
    fn reward(self, tokens: usize) -> f32 {
        let tokens = tokens as f64;
        let penalty = match self {
            Self::Overlong { max, cache } => {
                let free = (max - cache) as f64;
                ((tokens - free) / cache as f64).clamp(0.0, 1.0)
            }
            Self::Target(target) => ((tokens - target as f64).abs() / target as f64).min(1.0),
        };
        if penalty == 0.0 { 0.0 } else { -penalty as f32 }
    }
}

impl Source for Length {
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        let score = |completion: &Completion<'_>| {
            Reward::Score(self.reward(completion.rollout.completion.len()))
        };
        Ok(completions.iter().map(score).collect())
    }
}

/// 0 for everything.
pub(in crate::run::reward) struct Nothing;

impl Source for Nothing {
    fn score(&mut self, completions: &[Completion<'_>]) -> Result<Vec<Reward>> {
        Ok(vec![Reward::Score(0.0); completions.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_long_completions_are_punished_softly() {
        // The paper's numbers: 16,384 tokens are free, 4,096 more are the cache.
        let length = Length::Overlong { max: 20480, cache: 4096 };
        for (tokens, reward) in [
            (1, 0.0),
            (16384, 0.0),
            (16385, -1.0 / 4096.0),
            (18432, -0.5),
            (20480, -1.0),
            (20481, -1.0),
        ] {
            assert_eq!(length.reward(tokens), reward, "{tokens}");
        }
        assert_eq!(Length::Overlong { max: 4, cache: 4 }.reward(1), -0.25);
    }

    #[test]
    fn a_target_costs_the_distance_from_it() {
        let length = Length::Target(8);
        for (tokens, reward) in
            [(8, 0.0), (6, -0.25), (10, -0.25), (1, -0.875), (16, -1.0), (99, -1.0)]
        {
            assert_eq!(length.reward(tokens), reward, "{tokens}");
        }
    }
}
