//! The rollouts of an iteration, gathered until there are enough that teach something.

use std::sync::Arc;

use crate::{
    rollout::Rollout,
    run::{Metrics, generator::Answered},
    trainer::reward::Reward,
};

/// What an iteration is to learn from.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) rollouts: Vec<Rollout>,
    /// One for each of them.
    pub(super) rewards: Vec<Reward>,
    pub(super) metrics: Metrics,
}

impl Batch {
    /// Takes in answered prompts but those that are `refused`, and returns how many are.
    pub(super) fn add(
        &mut self,
        answered: Vec<Arc<Answered>>,
        rewards: Vec<Reward>,
        refused: impl Fn(&[Rollout], &[Reward]) -> bool,
    ) -> usize {
        let (mut rewards, mut idle) = (rewards.into_iter(), 0);
        for one in answered {
            let rollouts = Arc::unwrap_or_clone(one).rollouts;
            let earned: Vec<Reward> = rewards.by_ref().take(rollouts.len()).collect();
            if refused(&rollouts, &earned) {
                idle += 1;
                continue;
            }
            self.rollouts.extend(rollouts);
            self.rewards.extend(earned);
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::{Prompt, PromptId, StopReason, Ticket};

    fn answered(ticket: u64) -> Arc<Answered> {
        let rollout = |sample| Rollout {
            prompt: Prompt { id: PromptId(ticket), tokens: vec![7].into() },
            sample,
            completion: vec![9],
            rollout_logprobs: vec![-1.0],
            raw_logprobs: None,
            stop: StopReason::Length,
            versions: Vec::new(),
        };
        Arc::new(Answered {
            ticket: Ticket(ticket),
            prompt: 0,
            rollouts: (0..2).map(rollout).collect(),
        })
    }

    #[test]
    fn what_is_refused_goes_with_its_rewards() {
        let scores = |scores: &[f32]| scores.iter().map(|&s| Reward::Score(s)).collect::<Vec<_>>();
        let equal = |_: &[Rollout], earned: &[Reward]| earned[0] == earned[1];
        let mut batch = Batch::default();
        let three = (0..3).map(answered).collect();
        assert_eq!(batch.add(three, scores(&[1.0, 1.0, 0.0, 1.0, 2.0, 2.0]), equal), 2);
        let two = (3..5).map(answered).collect();
        assert_eq!(batch.add(two, scores(&[5.0, 4.0, 3.0, 3.0]), |_, _| false), 0);
        let kept: Vec<_> = batch.rollouts.iter().map(|r| (r.prompt.id.0, r.sample)).collect();
        assert_eq!(kept, [(1, 0), (1, 1), (3, 0), (3, 1), (4, 0), (4, 1)]);
        assert_eq!(batch.rewards, scores(&[0.0, 1.0, 5.0, 4.0, 3.0, 3.0]));
    }
}
