//! Advantages of an iteration's tokens, as the options have them estimated.

use std::ops::Range;

use crate::{
    rollout::Rollout,
    trainer::{
        advantage::{gae, group_relative, leave_one_out, moments, return_to_go},
        config::{AdvantageEstimator, PpoOptions},
        preference::dpo,
        reward::Reward,
    },
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
    /// How much more probable the policy finds each completion than the reference does (nats); zeros without one.
    pub(super) log_ratios: &'a [f32],
}

/// What the completions of a prompt come to.
#[derive(Default)]
struct Compared {
    /// Of each completion: what all its tokens get, or with a baseline, what is taken off what they earn from there on. `None`
    /// where there is nothing to compare it with.
    numbers: Vec<Option<f32>>,
    /// Which of them are left out of the loss.
    left_out: Vec<usize>,
}

impl Estimate<'_> {
    /// Estimates from each completion's own rewards.
    pub(super) fn alone(&self) -> Vec<f32> {
        let (gamma, lambda) = (self.options.gamma() as f32, self.options.gae_lambda() as f32);
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
    /// Completions that do not `learn` are compared with none, and have no advantage. Those that the options leave out of the
    /// loss do not learn afterwards.
    pub(super) fn in_groups(
        &self,
        groups: &[Range<usize>],
        scored: &[Reward],
        learn: &mut [bool],
    ) -> Vec<f32> {
        let mut wholes = vec![0.0; scored.len()];
        for (i, rows) in self.rows {
            wholes[*i] = self.rewards[rows.clone()].iter().sum();
        }
        let mut of_completions = vec![None; scored.len()];
        for group in groups {
            let members: Vec<usize> = group.clone().filter(|&i| learn[i]).collect();
            if members.is_empty() {
                continue;
            }
            let own: Vec<f32> = members.iter().map(|&i| wholes[i]).collect();
            let scores: Vec<f32> = members.iter().map(|&i| scored[i].score()).collect();
            let log_ratios: Vec<f32> = members.iter().map(|&i| self.log_ratios[i]).collect();
            let compared = self.compare(&own, &scores, &log_ratios);
            for (&i, number) in members.iter().zip(compared.numbers) {
                of_completions[i] = number;
            }
            compared.left_out.into_iter().for_each(|member| learn[members[member]] = false);
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

    /// Compares the completions of one prompt: by what they earned as wholes, KL penalty included, and by their scores alone.
    fn compare(&self, own: &[f32], scores: &[f32], log_ratios: &[f32]) -> Compared {
        let (options, count) = (self.options, own.len());
        let all = |numbers: Vec<f32>| Compared {
            numbers: numbers.into_iter().map(Some).collect(),
            left_out: Vec::new(),
        };
        match options.advantage() {
            AdvantageEstimator::BestOf => best_of(scores, options.best_of),
            AdvantageEstimator::OnlineDpo => pair(scores, log_ratios, options.dpo_beta),
            _ if count < 2 => Compared { numbers: vec![None; count], ..Compared::default() },
            AdvantageEstimator::Rloo => all(leave_one_out(own)),
            AdvantageEstimator::Grpo => all(group_relative(own, options.group_std())),
            _ => all(vec![moments(scores).0 as f32; count]),
        }
    }

    fn each(&self, mut estimate: impl FnMut(usize, Range<usize>) -> Vec<f32>) -> Vec<f32> {
        let mut advantages = vec![0.0; self.rewards.len()];
        for (i, rows) in self.rows {
            advantages[rows.clone()].copy_from_slice(&estimate(*i, rows.clone()));
        }
        advantages
    }
}

/// Says whether a prompt's completions teach something by comparison: whether two of those that may learn scored
/// differently, before any shaping (DAPO's dynamic sampling, Yu et al., 2025, section 3.2).
///
/// # Panics
/// If there is not one reward for each completion.
pub fn teaches(options: &PpoOptions, completions: &[Rollout], rewards: &[Reward]) -> bool {
    assert_eq!(completions.len(), rewards.len(), "one reward per completion");
    let may_learn = |rollout: &Rollout| rollout.stop.is_end() || !options.mask_unfinished;
    let learning = completions.iter().zip(rewards).filter(|(rollout, _)| may_learn(rollout));
    let mut scores = learning.map(|(_, reward)| reward.score());
    let first = scores.next();
    scores.any(|score| Some(score) != first)
}

/// Takes the `best` highest scored completions; of equal ones the earlier.
fn best_of(scores: &[f32], best: usize) -> Compared {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let left_out = order.split_off(best.min(order.len()));
    let mut numbers = vec![None; scores.len()];
    order.into_iter().for_each(|i| numbers[i] = Some(1.0));
    Compared { numbers, left_out }
}

/// Takes the highest and the lowest scored completion for a pair; there is none where all scored the same.
///
/// Each gets the derivative of DPO's loss with respect to its log-prob, with its sign turned. A mean over the sequences of
/// pairs is half a mean over pairs, hence the 2.
fn pair(scores: &[f32], log_ratios: &[f32], beta: f64) -> Compared {
    let mut numbers = vec![None; scores.len()];
    if let Some([chosen, rejected]) = extremes(scores) {
        let gap = f64::from(log_ratios[chosen]) - f64::from(log_ratios[rejected]);
        let slope = 2.0 * dpo(gap, beta, 0.0, 0.0).gradient;
        numbers[chosen] = Some(-slope as f32);
        numbers[rejected] = Some(slope as f32);
    }
    let left_out = (0..scores.len()).filter(|&i| numbers[i].is_none()).collect();
    Compared { numbers, left_out }
}

/// Returns the highest and the lowest scored completion, of equal ones the earlier; `None` where all scored the same.
pub(super) fn extremes(scores: &[f32]) -> Option<[usize; 2]> {
    let by_score = |i: &usize, j: &usize| scores[*i].total_cmp(&scores[*j]);
    let highest = (0..scores.len()).rev().max_by(by_score)?;
    let lowest = (0..scores.len()).min_by(by_score)?;
    (scores[highest] > scores[lowest]).then_some([highest, lowest])
}
