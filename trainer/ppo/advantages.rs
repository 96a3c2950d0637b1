//! Advantages of an iteration's tokens, as the options have them estimated.

use std::ops::Range;

use crate::trainer::{
    advantage::{gae, group_relative, leave_one_out, moments, return_to_go},
    config::{AdvantageEstimator, PpoOptions},
    reward::Reward,
};

/// What advantages are estimated from.
pub(super) struct Estimate<'a> {
    pub(super) options: &'a PpoOptions,
    /// Every completion's index and tokens.
    pub(super) rows: &'a [(usize, Range<usize>)],
    /// What each token earned, KL penalty included.
    pub(super) rewards: &'a [f32],
    /// What the critic expected; empty without one.
    pub(super) values: &'a [f32],
}

impl Estimate<'_> {
    /// Estimates from each completion's own rewards.
    pub(super) fn alone(&self) -> Vec<f32> {
        let (gamma, lambda) = (self.options.gamma as f32, self.options.gae_lambda() as f32);
        self.each(|_, rows| {
            let rewards = &self.rewards[rows.clone()];
            match self.values.get(rows) {
                Some(values) if self.options.has_critic() => gae(rewards, values, gamma, lambda),
                _ => return_to_go(rewards, gamma),
            }
        })
    }

    /// Estimates by comparing the completions of a prompt, `scored` as wholes.
    ///
    /// Completions that do not `learn` are compared with none, and have no advantage.
    pub(super) fn in_groups(
        &self,
        groups: &[Range<usize>],
        scored: &[Reward],
        learn: impl Fn(usize) -> bool,
    ) -> Vec<f32> {
        let mut wholes = vec![0.0; scored.len()];
        for (i, rows) in self.rows {
            wholes[*i] = self.rewards[rows.clone()].iter().sum();
        }
        // What all tokens of a completion get, and whether it is what they earned from there on less a baseline.
        let mut of_completions = vec![None; scored.len()];
        for group in groups {
            let members: Vec<usize> = group.clone().filter(|&i| learn(i)).collect();
            if members.len() < 2 {
                continue;
            }
            let own: Vec<f32> = members.iter().map(|&i| wholes[i]).collect();
            let numbers = match self.options.advantage() {
                AdvantageEstimator::Rloo => leave_one_out(&own),
                AdvantageEstimator::Grpo => group_relative(&own, self.options.group_std()),
                _ => {
                    let scores: Vec<f32> = members.iter().map(|&i| scored[i].score()).collect();
                    vec![moments(&scores).0 as f32; members.len()]
                }
            };
            for (i, number) in members.into_iter().zip(numbers) {
                of_completions[i] = Some(number);
            }
        }
        let to_go = self.options.advantage() == AdvantageEstimator::ReinforceBaseline;
        self.each(|i, rows| match of_completions[i] {
            None => vec![0.0; rows.len()],
            Some(baseline) if to_go => {
                let returns = return_to_go(&self.rewards[rows], 1.0);
                returns.into_iter().map(|earned| earned - baseline).collect()
            }
            Some(advantage) => vec![advantage; rows.len()],
        })
    }

    fn each(&self, mut estimate: impl FnMut(usize, Range<usize>) -> Vec<f32>) -> Vec<f32> {
        let mut advantages = vec![0.0; self.rewards.len()];
        for (i, rows) in self.rows {
            advantages[rows.clone()].copy_from_slice(&estimate(*i, rows.clone()));
        }
        advantages
    }
}
