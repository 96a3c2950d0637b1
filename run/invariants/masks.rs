//! Whether what is trained on is what was sampled: every token once, with its weight.

use std::ops::Range;

use super::Breach;
use crate::{
    rollout::Rollout,
    trainer::{
        batch::{MicroBatch, Normalization},
        config::PpoOptions,
        ppo::Trajectories,
    },
};

/// How far sums of f32 weights may be off.
const ROUNDING: f64 = 1e-4;

/// Checks the plan of an update, and what its tokens weigh for critic and policy, against the completions it was made of.
pub(super) fn check(
    rollouts: &[Rollout],
    trajectories: &Trajectories,
    options: &PpoOptions,
) -> Result<(), Breach> {
    check_rows(rollouts, &trajectories.plan.sequence_rows())?;
    check_selection(rollouts, trajectories, options)?;
    let learns = |i: usize| trajectories.learns[i];
    for mini_batch in &trajectories.plan.mini_batches {
        let rows: Vec<_> = mini_batch.iter().flat_map(MicroBatch::sequence_rows).collect();
        let check = |weights: &[f32], counts: &dyn Fn(usize) -> bool| {
            let counted = rows.iter().filter(|(i, _)| counts(*i));
            let tokens: Vec<usize> = counted.map(|(_, rows)| rows.len()).collect();
            let all = rows.iter().flat_map(|(_, rows)| &weights[rows.clone()]);
            let sum = all.map(|&weight| f64::from(weight)).sum();
            check_sum(sum, &tokens, options.loss_normalization())
        };
        let scale = options.loss_length() as f32;
        let policy_weights: Vec<f32> =
            trajectories.policy_weights.iter().map(|weight| weight * scale).collect();
        if options.has_critic() {
            check(&trajectories.value_weights, &|_| true)?;
        }
        check(&policy_weights, &learns)?;
    }
    Ok(())
}

/// Checks which completions count for the policy: those that ended, or all; fewer only where the options select some.
fn check_selection(
    rollouts: &[Rollout],
    trajectories: &Trajectories,
    options: &PpoOptions,
) -> Result<(), Breach> {
    let selects = options.filter_groups || options.advantage().selects();
    let may = |rollout: &Rollout| rollout.stop.is_end() || !options.mask_unfinished;
    let expected = rollouts.iter().filter(|rollout| may(rollout)).count();
    let counts = trajectories.learns.iter().filter(|&&learns| learns).count();
    let all = rollouts.iter().zip(&trajectories.learns).all(|(rollout, &learns)| {
        let may = may(rollout);
        if selects { may || !learns } else { may == learns }
    });
    let whole = trajectories.learns.len() == rollouts.len() && all;
    Breach::unless(whole, || {
        let rule = if selects { format!("some of {expected}") } else { expected.to_string() };
        ("the completions that the policy learns from".into(), rule, counts)
    })
}

/// Checks that each rollout's rows are there once, one for each of its tokens and each of its weight versions' tokens.
fn check_rows(rollouts: &[Rollout], planned: &[(usize, Range<usize>)]) -> Result<(), Breach> {
    let mut times = vec![0; rollouts.len()];
    let mut end = 0;
    for (i, rows) in planned {
        let (rollout, tokens) = (&rollouts[*i], rollouts[*i].completion.len());
        let of = |what: &str| {
            format!("{what} of prompt {}, sample {}", rollout.prompt.id.0, rollout.sample)
        };
        Breach::unless(rows.start == end && rows.len() == tokens, || {
            (of("the loss rows"), format!("{tokens} from row {end} on"), format!("{rows:?}"))
        })?;
        let dated: u64 = rollout.versions.iter().map(|span| u64::from(span.tokens)).sum();
        Breach::unless(dated == tokens as u64, || {
            (of("the tokens with a weight version"), tokens.to_string(), dated)
        })?;
        times[*i] += 1;
        end = rows.end;
    }
    let odd = rollouts.iter().zip(&times).find(|(_, times)| **times != 1);
    odd.map_or(Ok(()), |(rollout, times)| {
        let (prompt, sample) = (rollout.prompt.id.0, rollout.sample);
        let what = format!("the times that prompt {prompt}, sample {sample} is in an epoch");
        Err(Breach { what, rule: "1".into(), got: times.to_string() })
    })
}

/// Checks what the weights of an optimizer step add up to, given the tokens of the sequences that count.
fn check_sum(sum: f64, tokens: &[usize], normalization: Normalization) -> Result<(), Breach> {
    let all = tokens.iter().sum::<usize>() as f64;
    let expected = match normalization {
        _ if tokens.is_empty() => 0.0,
        Normalization::TokenMean | Normalization::SeqMeanTokenMean => 1.0,
        Normalization::SeqMeanTokenSum | Normalization::SeqMeanTokenSumNorm => {
            all / tokens.len() as f64
        }
    };
    Breach::unless((sum - expected).abs() <= ROUNDING * expected, || {
        ("the weights of an optimizer step's tokens".into(), format!("{expected} in all"), sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rollout::StopReason,
        run::invariants::ledger::tests::answered,
        trainer::{
            batch::{MaskedSequence, Plan},
            config::AdvantageEstimator,
        },
    };

    /// Three completions, of which the second did not end by itself.
    fn rollouts() -> Vec<Rollout> {
        let mut all = [answered(0, 0, 2), answered(1, 0, 1)].map(|one| one.rollouts).concat();
        all[0].stop = StopReason::Token(10);
        all[2].stop = StopReason::Token(10);
        all
    }

    fn trajectories(
        rollouts: &[Rollout],
        members: &[Vec<usize>],
        options: &PpoOptions,
    ) -> Trajectories {
        let sequences: Vec<_> = rollouts.iter().map(Rollout::sequence).collect();
        let mask = [false, false, true, true];
        let masked: Vec<_> =
            sequences.iter().map(|tokens| MaskedSequence { tokens, mask: &mask }).collect();
        let plan = Plan::new(&masked, members, 8);
        let weights =
            |learns: &dyn Fn(usize) -> bool| plan.weights(options.loss_normalization(), learns);
        let learns: Vec<bool> = (0..3).map(|i| i != 1 || !options.mask_unfinished).collect();
        let (value_weights, policy_weights) = (weights(&|_| true), weights(&|i| learns[i]));
        Trajectories { value_weights, learns, policy_weights, plan, ..Trajectories::default() }
    }

    #[test]
    fn a_plan_of_all_completions_adds_up_under_every_normalization() {
        let rollouts = rollouts();
        for (loss_normalization, mask_unfinished) in [
            (Normalization::TokenMean, false),
            (Normalization::SeqMeanTokenMean, true),
            (Normalization::SeqMeanTokenSum, true),
        ] {
            let options = PpoOptions {
                loss_normalization: Some(loss_normalization),
                mask_unfinished,
                ..PpoOptions::default()
            };
            let good = trajectories(&rollouts, &[vec![2, 0], vec![1]], &options);
            check(&rollouts, &good, &options).unwrap();
            for spoil in [
                (|t| t.value_weights[3] *= 1.01) as fn(&mut Trajectories),
                |t| t.policy_weights[0] += 0.01,
                |t| t.policy_weights[0] = f32::NAN,
            ] {
                let mut bad = good.clone();
                spoil(&mut bad);
                let said = check(&rollouts, &bad, &options).unwrap_err().to_string();
                assert!(said.starts_with("the weights of an optimizer step's tokens"), "{said}");
            }
        }
    }

    #[test]
    fn a_completion_that_does_not_count_though_it_should_is_noticed() {
        let (rollouts, usual) = (rollouts(), PpoOptions::default());
        let mut bad = trajectories(&rollouts, &[vec![0, 1, 2]], &usual);
        bad.learns[2] = false;
        let said = check(&rollouts, &bad, &usual).unwrap_err().to_string();
        assert_eq!(said, "the completions that the policy learns from must be 3, got 2");
        let selecting = PpoOptions {
            advantage: Some(AdvantageEstimator::BestOf),
            mask_unfinished: true,
            ..PpoOptions::default()
        };
        let said = check(&rollouts, &bad, &selecting).unwrap_err().to_string();
        assert_eq!(said, "the completions that the policy learns from must be some of 2, got 2");
    }

    #[test]
    fn a_completion_left_out_or_there_twice_is_named() {
        let (rollouts, usual) = (rollouts(), PpoOptions::default());
        let lacking = trajectories(&rollouts, &[vec![0, 2]], &usual);
        let said = check(&rollouts, &lacking, &usual).unwrap_err().to_string();
        assert_eq!(said, "the times that prompt 0, sample 1 is in an epoch must be 1, got 0");
        let twice = trajectories(&rollouts, &[vec![0, 1], vec![2, 2]], &usual);
        let said = check(&rollouts, &twice, &usual).unwrap_err().to_string();
        assert!(said.ends_with("prompt 1, sample 0 is in an epoch must be 1, got 2"), "{said}");
    }

    #[test]
    fn tokens_that_do_not_add_up_are_named() {
        let usual = PpoOptions::default();
        let mut rollouts = rollouts();
        let planned = trajectories(&rollouts, &[vec![0, 1, 2]], &usual);
        rollouts[1].versions[0].tokens = 1;
        let said = check(&rollouts, &planned, &usual).unwrap_err().to_string();
        assert_eq!(said, "the tokens with a weight version of prompt 0, sample 1 must be 2, got 1");
        rollouts[1].completion.push(11);
        let said = check(&rollouts, &planned, &usual).unwrap_err().to_string();
        assert!(
            said.starts_with("the loss rows of prompt 0, sample 1 must be 3 from row"),
            "{said}"
        );
    }
}
