//! Rewards that are none.

use std::sync::Arc;

use super::Breach;
use crate::{data::PromptSample, run::generator::Answered, trainer::reward::Reward};

/// Checks that every reward is finite, and each completion's sum within `least..=most`. Names the first that is not by its
/// row of the data, its ticket and its sample.
pub(super) fn check(
    batch: &[Arc<Answered>],
    rewards: &[Reward],
    prompts: &[PromptSample],
    (least, most): (f64, f64),
) -> Result<(), Breach> {
    let completions = batch.iter().flat_map(|answered| {
        answered.rollouts.iter().map(move |rollout| (answered.prompt, rollout))
    });
    for ((prompt, rollout), reward) in completions.zip(rewards) {
        let score = f64::from(reward.score());
        let words = |rule: String| {
            let place = &prompts[prompt].place;
            let (ticket, sample) = (rollout.prompt.id.0, rollout.sample);
            (format!("the reward of {place} (prompt {ticket}, sample {sample})"), rule, score)
        };
        Breach::unless(reward.is_finite(), || words("finite".into()))?;
        let within = (least..=most).contains(&score);
        Breach::unless(within, || words(format!("from {least} to {most}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{data::Place, run::invariants::ledger::tests::answered};

    fn checked(rewards: &[Reward], range: (f64, f64)) -> Result<(), String> {
        let prompts = [0, 1].map(|row| PromptSample {
            tokens: vec![row].into(),
            extra: serde_json::Map::new(),
            place: Place { file: Path::new("a.jsonl").into(), line: row as u64 + 1 },
        });
        let batch = [answered(4, 0, 1), answered(5, 1, 2)].map(Arc::new);
        check(&batch, rewards, &prompts, range).map_err(|breach| breach.to_string())
    }

    #[test]
    fn a_reward_out_of_range_or_of_no_number_is_named() {
        let everything = (f64::NEG_INFINITY, f64::INFINITY);
        let rewards = |last| [Reward::Score(0.0), Reward::Score(1.0), last];
        checked(&rewards(Reward::Score(-1e30)), everything).unwrap();
        let said = checked(&rewards(Reward::Score(f32::NAN)), everything).unwrap_err();
        assert_eq!(said, "the reward of a.jsonl:2 (prompt 5, sample 1) must be finite, got NaN");
        let said = checked(&rewards(Reward::PerToken(vec![1.0, 0.5])), (0.0, 1.0)).unwrap_err();
        assert!(said.ends_with("sample 1) must be from 0 to 1, got 1.5"), "{said}");
        let infinite = Reward::PerToken(vec![f32::INFINITY, f32::NEG_INFINITY]);
        assert!(checked(&rewards(infinite), everything).is_err());
    }
}
