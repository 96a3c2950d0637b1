//! Without a critic: completions of a prompt are compared with each other.

use super::*;
use crate::trainer::config::{AdvantageEstimator, PolicyLossKind, PpoPreset};

/// Completions of one or two words, two to a prompt but for the last, which has one.
pub(super) fn pairs() -> Vec<Rollout> {
    let one = |id, sample, completion: &[u32]| {
        let logprobs = vec![-1.0; completion.len()];
        Rollout { sample, ..rollout(id, completion.to_vec(), logprobs) }
    };
    vec![
        one(0, 0, &[2, 1]),
        one(0, 1, &[3, 1]),
        one(1, 0, &[2, 1]),
        one(1, 1, &[4, 1]),
        // The same prompt, drawn once more.
        one(1, 0, &[5, 1]),
        one(1, 1, &[2, 1]),
        one(2, 0, &[2, 1]),
    ]
}

pub(super) fn scores(scores: &[f32]) -> Vec<Reward> {
    scores.iter().map(|&score| Reward::Score(score)).collect()
}

fn options(advantage: AdvantageEstimator) -> PpoOptions {
    PpoOptions {
        preset: PpoPreset::Grpo,
        advantage: Some(advantage),
        samples_per_prompt: 2,
        whiten_advantages: Some(false),
        ..Default::default()
    }
}

/// Returns the advantages of each completion's tokens, in the order of the rollouts.
pub(super) fn advantages(scored: &Trajectories) -> Vec<Vec<f32>> {
    let mut rows = scored.plan.sequence_rows();
    rows.sort_by_key(|(i, _)| *i);
    rows.into_iter().map(|(_, rows)| scored.advantages[rows].to_vec()).collect()
}

#[test]
fn advantages_agree_with_the_table() {
    let earned = [1.0, 0.0, 0.5, 0.5, 3.0, 1.0, 7.0];
    let std = |gap: f32| gap / 2.0 / (gap / 2f32.sqrt() + 1e-4);
    let (one, two) = (std(1.0), std(2.0));
    let table = [
        (AdvantageEstimator::Grpo, [one, -one, 0.0, 0.0, two, -two, 0.0]),
        (AdvantageEstimator::Rloo, [1.0, -1.0, 0.0, 0.0, 2.0, -2.0, 0.0]),
        (AdvantageEstimator::ReinforceBaseline, [0.5, -0.5, 0.0, 0.0, 1.0, -1.0, 0.0]),
        (AdvantageEstimator::Reinforce, earned),
    ];
    for (advantage, expected) in table {
        let mut ppo = ppo(options(advantage), 1.0);
        let scored = ppo.score(&pairs(), &scores(&earned)).unwrap();
        for (got, expected) in advantages(&scored).iter().zip(expected) {
            close(got, &[expected; 2]);
        }
        assert!(scored.values.is_empty() && scored.returns.is_empty());
        let zero_std = advantage.compares_groups().then_some(0.5);
        assert_eq!(scored.stats.zero_std, zero_std, "of four prompts two have equal scores");
        assert_eq!(scored.stats.foresight, None);
    }
    let plain = PpoOptions { group_std: Some(false), ..options(AdvantageEstimator::Grpo) };
    let scored = ppo(plain, 1.0).score(&pairs(), &scores(&earned)).unwrap();
    close(
        &advantages(&scored).concat(),
        &[[0.5; 2], [-0.5; 2], [0.0; 2], [0.0; 2], [1.0; 2], [-1.0; 2], [0.0; 2]].concat(),
    );
}

#[test]
fn a_penalty_in_the_reward_is_told_token_by_token_or_summed_up() {
    for advantage in [
        AdvantageEstimator::Reinforce,
        AdvantageEstimator::ReinforceBaseline,
        AdvantageEstimator::Rloo,
    ] {
        let options =
            PpoOptions { kl_coef: Some(0.5), kl_in: Some(KlPlace::Reward), ..options(advantage) };
        let mut ppo = ppo(options, 1.0);
        // The policy moves away from the reference, so that there is a KL.
        ppo.policy_mut().table.weights[2] += 1.0;
        let rollouts = &pairs()[..2];
        let scored = ppo.score(rollouts, &scores(&[2.0, 1.0])).unwrap();
        let mut rows = scored.plan.sequence_rows();
        rows.sort_by_key(|(i, _)| *i);
        let earned: Vec<&[f32]> =
            rows.iter().map(|(_, rows)| &scored.rewards[rows.clone()]).collect();
        let whole = |i: usize| earned[i].iter().sum::<f32>();
        let got = advantages(&scored);
        match advantage {
            AdvantageEstimator::Rloo => {
                close(&got[0], &[whole(0) - whole(1); 2]);
                close(&got[1], &[whole(1) - whole(0); 2]);
            }
            _ => {
                let baseline = if advantage.compares_groups() { 1.5 } else { 0.0 };
                close(&got[0], &[whole(0) - baseline, earned[0][1] - baseline]);
                close(&got[1], &[whole(1) - baseline, earned[1][1] - baseline]);
            }
        }
        assert!((whole(0) - 2.0).abs() > 0.05, "there is a penalty");
    }
}

#[test]
fn a_completion_that_does_not_learn_is_compared_with_none() {
    let mut rollouts = pairs();
    rollouts.truncate(3);
    rollouts[2] = Rollout { sample: 2, ..rollout(0, vec![4, 4], vec![-1.0; 2]) };
    let options = PpoOptions {
        mask_unfinished: true,
        group_std: Some(false),
        ..options(AdvantageEstimator::Grpo)
    };
    let scored = ppo(options.clone(), 1.0).score(&rollouts, &scores(&[1.0, 0.0, 9.0])).unwrap();
    close(&advantages(&scored).concat(), &[0.5, 0.5, -0.5, -0.5, 0.0, 0.0]);
    // One that learns is left: nothing to be compared with.
    let scored = ppo(options, 1.0).score(&rollouts[1..], &scores(&[1.0, 9.0])).unwrap();
    assert_eq!(advantages(&scored).concat(), [0.0; 4]);
}

#[test]
fn each_loss_has_the_gradient_of_its_table_once_the_policy_has_moved() {
    // A completion's two log-probs have moved by 0.3 and -0.1: ratios of 1.3498588 and 0.9048374, the completion's is
    // exp(0.1) = 1.1051709. The bounds are 0.8 and 1.2. What -A is multiplied by, where A is above 0 and below:
    let second = 0.904_837_4;
    let table = [
        (PolicyLossKind::Ppo, [0.0, second], [1.349_858_8, second]),
        (PolicyLossKind::Gspo, [1.105_170_9; 2], [1.105_170_9; 2]),
        (PolicyLossKind::Cispo, [1.2, second], [1.2, second]),
        (PolicyLossKind::Reinforce, [1.0; 2], [1.0; 2]),
    ];
    for (kind, good, bad) in table {
        let options = PpoOptions { policy_loss: Some(kind), ..options(AdvantageEstimator::Rloo) };
        let loss = PolicyLoss::new(&options, 0.0);
        let mut ppo = ppo(options, 1.0);
        let scored = ppo.score(&pairs(), &scores(&[1.0, 0.0, 0.5, 0.5, 3.0, 1.0, 7.0])).unwrap();
        let completions = scored.plan.sequence_rows();
        for micro_batch in scored.plan.micro_batches() {
            let moved = |t: usize| {
                let is_first = completions.iter().any(|(_, rows)| rows.start == t);
                scored.old_logprobs[t] + if is_first { 0.3 } else { -0.1 }
            };
            let rows = micro_batch.rows.clone();
            let out = TokenLogprobs {
                logprobs: rows.clone().map(moved).collect(),
                entropy: vec![1.0; rows.len()],
                ..Default::default()
            };
            let tally = &mut PolicyTally::default();
            let gradients = loss.gradients(&out, micro_batch, &scored, tally).logprobs;
            for (n, t) in rows.enumerate() {
                let (_, of) = completions.iter().find(|(_, rows)| rows.contains(&t)).unwrap();
                let (advantage, weight) = (scored.advantages[t], scored.policy_weights[t]);
                let factor = if advantage > 0.0 { good } else { bad }[t - of.start];
                close(&[gradients[n]], &[-advantage * weight * factor]);
                assert!(weight > 0.0, "{kind:?}");
            }
        }
    }
}

/// Samples `size` completions for each of so many prompts.
pub(super) fn groups(policy: &Bigram, prompts: usize, size: usize, seed: u64) -> Vec<Rollout> {
    let all = sample(policy, prompts * size, seed);
    let of_group = |(i, one): (usize, Rollout)| {
        let prompt = Prompt { id: PromptId((i / size) as u64), ..one.prompt };
        Rollout { prompt, sample: (i % size) as u32, ..one }
    };
    all.into_iter().enumerate().map(of_group).collect()
}

const PRESETS: [PpoPreset; 7] = [
    PpoPreset::Grpo,
    PpoPreset::DrGrpo,
    PpoPreset::Dapo,
    PpoPreset::Gspo,
    PpoPreset::Cispo,
    PpoPreset::Rloo,
    PpoPreset::ReinforcePp,
];

pub(super) fn preset(preset: PpoPreset) -> PpoOptions {
    PpoOptions { preset, samples_per_prompt: 4, prompts_per_iteration: 16, ..Default::default() }
}

#[test]
fn the_first_ratio_is_1_and_the_kl_0_under_every_preset() {
    for name in PRESETS {
        let mut ppo = ppo(preset(name), 1.0);
        let rollouts = groups(ppo.policy(), 8, 4, 1);
        let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
        let stats = ppo.update(&scored).unwrap();
        assert_eq!((stats.first_ratio_error, stats.clip_fraction, stats.ratio), (0.0, 0.0, 1.0));
        assert_eq!((stats.values, stats.policy_steps), (None, 1), "{name:?}");
        assert!(stats.policy_grad_norm > 0.0);
        let names = stats.metrics();
        assert!(names.iter().all(|(name, _)| !name.contains("value")), "{names:?}");
    }
}

#[test]
fn gradients_do_not_depend_on_the_token_budget_under_any_preset() {
    let reinforce =
        PpoOptions { policy_loss: Some(PolicyLossKind::Reinforce), ..preset(PpoPreset::Rloo) };
    for kind in PRESETS.map(preset).into_iter().chain([reinforce]) {
        let updated = |micro_batch_tokens| {
            let options = PpoOptions {
                micro_batch_tokens,
                mini_batches: 2,
                epochs: Some(3),
                clip_range: Some(0.02),
                ..kind.clone()
            };
            let mut ppo = ppo(options, 0.5);
            let rollouts = groups(ppo.policy(), 8, 4, 2);
            let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
            ppo.update(&scored).unwrap();
            ppo.models.policy.table.weights
        };
        let whole = updated(100_000);
        assert_ne!(whole, Bigram::new(VOCAB).table.weights);
        for budget in [1, 25] {
            let cut = updated(budget);
            let same = whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(same, "{:?}, budget {budget}", kind.preset);
        }
    }
}

/// Trains under a preset for 30 iterations. Returns the share of even words before and after.
pub(super) fn trained(options: PpoOptions, shuffled: bool) -> (f32, f32) {
    let mut ppo = ppo(options, 1.0);
    let share =
        |rollouts: &[Rollout]| rollouts.iter().map(evenness).sum::<f32>() / rollouts.len() as f32;
    let before = share(&sample(ppo.policy(), 200, 77));
    for iteration in 0..30 {
        let rollouts = groups(ppo.policy(), 16, 4, iteration);
        let mut earned = rewards(&rollouts);
        if shuffled {
            earned.shuffle(&mut ChaCha8Rng::seed_from_u64(iteration));
        }
        let scored = ppo.score(&rollouts, &earned).unwrap();
        ppo.update(&scored).unwrap();
    }
    (before, share(&sample(ppo.policy(), 200, 78)))
}

#[test]
fn a_policy_learns_what_is_rewarded_by_grpo_and_its_kin_and_nothing_from_shuffled_rewards() {
    for &name in &PRESETS[..5] {
        // What it takes for a table, which has no AdamW: four steps an iteration, a clip that lets them act, and no
        // reference to hold it.
        let options = PpoOptions {
            epochs: Some(4),
            kl_coef: Some(0.0),
            clip_range: Some(0.2),
            clip_range_high: Some(0.28),
            ..preset(name)
        };
        let (before, after) = trained(options.clone(), false);
        assert!(before < 0.5 && after > 0.75, "{name:?}: from {before} to {after}");
        let (before, after) = trained(options, true);
        assert!(after < before + 0.15, "{name:?}, shuffled: from {before} to {after}");
    }
}

#[test]
fn gae_needs_a_critic_and_the_others_are_content_without_a_reference() {
    let models =
        || PpoModels { policy: Bigram::new(VOCAB), reference: None, critic: None::<TokenValues> };
    Ppo::new(models(), setup(preset(PpoPreset::Grpo), 1.0)).unwrap();
    let options = PpoOptions { kl_coef: Some(0.0), ..Default::default() };
    let error = Ppo::new(models(), setup(options, 1.0)).err().unwrap();
    assert_eq!(
        error.to_string(),
        "advantage must be one that needs no critic where there is none, got gae"
    );
}
