//! Where only some of a prompt's completions count: rejection sampling, online DPO, prompts that teach nothing.

use super::{
    groups::{advantages, pairs, preset, scores, trained},
    *,
};
use crate::trainer::{
    batch::MaskedSequence,
    config::{DpoOptions, PpoPreset},
    dpo::{Dpo, DpoPair},
    referred::Referred,
};

const EARNED: [f32; 7] = [1.0, 0.0, 0.5, 0.5, 3.0, 1.0, 7.0];

fn options(preset: PpoPreset) -> PpoOptions {
    PpoOptions { preset, samples_per_prompt: 2, ..Default::default() }
}

#[test]
fn rejection_sampling_imitates_the_best_and_leaves_the_others_out() {
    let mut ppo = ppo(options(PpoPreset::RejectionSampling), 1.0);
    let scored = ppo.score(&pairs(), &scores(&EARNED)).unwrap();
    // Of equal ones the first.
    let best = [true, false, true, false, true, false, true];
    assert_eq!(scored.learns, best);
    for (got, best) in advantages(&scored).iter().zip(best) {
        assert_eq!(got, &[f32::from(u8::from(best)); 2]);
    }
    for (i, rows) in scored.plan.sequence_rows() {
        // Two tokens in each of the four completions that count.
        close(&scored.policy_weights[rows], &[if best[i] { 0.125 } else { 0.0 }; 2]);
    }
    assert_eq!(scored.stats.learning, 4);
}

#[test]
fn prompts_that_teach_nothing_count_in_no_denominator() {
    let plain = PpoOptions { mini_batches: 1, ..options(PpoPreset::Dapo) };
    let filtered = PpoOptions { filter_groups: true, ..plain.clone() };
    let mut with = ppo(filtered, 1.0);
    let scored = with.score(&pairs(), &scores(&EARNED)).unwrap();
    assert_eq!(scored.learns, [true, true, false, false, true, true, false]);
    with.update(&scored).unwrap();
    let informative: Vec<Rollout> = pairs()
        .into_iter()
        .enumerate()
        .filter(|(i, _)| scored.learns[*i])
        .map(|(_, r)| r)
        .collect();
    let mut without = ppo(plain, 1.0);
    let scored = without.score(&informative, &scores(&[1.0, 0.0, 3.0, 1.0])).unwrap();
    without.update(&scored).unwrap();
    let weights = |ppo: &Ppo<Bigram, TokenValues>| ppo.policy().table.weights.clone();
    let same = weights(&with).iter().zip(weights(&without)).all(|(a, b)| (a - b).abs() < 1e-7);
    assert!(same && weights(&with) != Bigram::new(VOCAB).table.weights);
}

#[test]
fn a_prompt_teaches_where_two_that_may_learn_scored_differently() {
    let plain = options(PpoPreset::Dapo);
    let masked = PpoOptions { mask_unfinished: true, ..plain.clone() };
    let mut group: Vec<Rollout> = pairs().into_iter().take(2).collect();
    let teaches = |options, group: &[Rollout], of: [f32; 2]| teaches(options, group, &scores(&of));
    assert!(teaches(&plain, &group, [1.0, 0.0]) && !teaches(&plain, &group, [0.5, 0.5]));
    assert!(teaches(&masked, &group, [1.0, 0.0]));
    group[1].stop = StopReason::Length;
    assert!(teaches(&plain, &group, [1.0, 0.0]) && !teaches(&masked, &group, [1.0, 0.0]));
    assert!(!super::teaches(&plain, &group[..1], &scores(&[1.0])));
}

#[test]
fn what_teaches_is_told_by_scores_before_they_are_shaped() {
    // The penalty sets the two apart that earned the same.
    let options =
        PpoOptions { filter_groups: true, missing_eos_penalty: 1.0, ..options(PpoPreset::Dapo) };
    let mut rollouts: Vec<Rollout> = pairs().into_iter().take(4).collect();
    rollouts[3].stop = StopReason::Length;
    let scored = ppo(options, 1.0).score(&rollouts, &scores(&[1.0, 0.0, 0.5, 0.5])).unwrap();
    assert_eq!(scored.learns, [true, true, false, false]);
}

#[test]
fn an_optimizer_step_with_nothing_to_learn_from_is_not_taken() {
    let options = PpoOptions { filter_groups: true, ..options(PpoPreset::Grpo) };
    let mut ppo = ppo(options, 1.0);
    let scored = ppo.score(&pairs(), &scores(&[1.0; 7])).unwrap();
    let stats = ppo.update(&scored).unwrap();
    assert_eq!((stats.policy_steps, stats.skipped(), scored.stats.learning), (0, 0, 0));
    assert_eq!((ppo.policy().table.steps, ppo.state().policy_steps), (0, 1));
}

/// Moves a policy away from its reference.
fn moved(policy: &mut Bigram) {
    policy.table.weights.iter_mut().enumerate().for_each(|(i, w)| *w += 0.3 * (i % 4) as f64);
}

#[test]
fn online_dpo_takes_the_step_of_dpo_on_the_pairs_of_best_and_worst() {
    for budget in [1, 1000] {
        let options = PpoOptions {
            dpo_beta: 0.5,
            micro_batch_tokens: budget,
            ..options(PpoPreset::OnlineDpo)
        };
        let mut online = ppo(options, 1.0);
        moved(online.policy_mut());
        let rollouts = pairs();
        let scored = online.score(&rollouts, &scores(&EARNED)).unwrap();
        let stats = online.update(&scored).unwrap();
        assert_eq!(stats.policy_steps, 1);

        let whole: Vec<Vec<u32>> = rollouts.iter().map(Rollout::sequence).collect();
        let mask = [false, true, true];
        let pair = |chosen: usize, rejected: usize| DpoPair {
            chosen: MaskedSequence { tokens: &whole[chosen], mask: &mask },
            rejected: MaskedSequence { tokens: &whole[rejected], mask: &mask },
            margin: None,
            rewards: [None; 2],
            reference: [0.0; 2],
        };
        let mut offline_pairs = [pair(0, 1), pair(4, 5)];
        DpoPair::refer(&mut offline_pairs, &Bigram::new(VOCAB), 1000).unwrap();
        let mut policy = Bigram::new(VOCAB);
        moved(&mut policy);
        let optimizer = OptimizerConfig { lr: 1.0, ..OptimizerConfig::default() };
        let options = DpoOptions { beta: 0.5, ..Default::default() };
        let mut offline =
            Dpo::new(policy, options, &optimizer, &ScheduleConfig::default(), 100).unwrap();
        let found = offline.step(&offline_pairs).unwrap().found;
        let weights = online.policy().table.weights.iter().zip(&offline.model().table.weights);
        assert!(weights.clone().all(|(a, b)| (a - b).abs() < 1e-6), "budget {budget}");
        let judged = scored.stats.pairs.unwrap();
        assert_eq!((judged.count, judged.accuracy), (2, found.accuracy));
        assert!((judged.loss - found.loss).abs() < 1e-6, "{judged:?} {found:?}");
        assert!((judged.margin - (found.chosen - found.rejected)).abs() < 1e-6);
    }
}

#[test]
fn the_first_loss_of_online_dpo_is_ln_2() {
    let mut ppo = ppo(options(PpoPreset::OnlineDpo), 1.0);
    let scored = ppo.score(&pairs(), &scores(&EARNED)).unwrap();
    assert_eq!(scored.stats.pairs.unwrap().loss, std::f64::consts::LN_2);
    assert_eq!(scored.stats.kl, Some(0.0));
}

#[test]
fn policies_learn_from_their_best_and_from_pairs_and_nothing_from_shuffled_rewards() {
    // What it takes for a table, which has no AdamW.
    for (name, epochs, least) in
        [(PpoPreset::RejectionSampling, 4, 0.75), (PpoPreset::OnlineDpo, 1, 0.5)]
    {
        let preset = |name| PpoOptions { epochs: Some(epochs), dpo_beta: 1.0, ..preset(name) };
        let (before, after) = trained(preset(name), false);
        assert!(before < 0.3 && after > least, "{name:?}: from {before} to {after}");
        let (before, after) = trained(preset(name), true);
        assert!(after < before + 0.15, "{name:?}, shuffled: from {before} to {after}");
    }
}

#[test]
fn the_weights_of_dr_grpo_are_sums_divided_by_a_constant() {
    let weights = |loss_normalization, loss_length| {
        let options = PpoOptions {
            loss_normalization: Some(loss_normalization),
            loss_length: Some(loss_length),
            ..options(PpoPreset::DrGrpo)
        };
        ppo(options, 1.0).score(&pairs(), &scores(&EARNED)).unwrap().policy_weights
    };
    let sums = weights(Normalization::SeqMeanTokenSum, 8);
    let scaled: Vec<f32> = sums.iter().map(|weight| weight / 8.0).collect();
    assert_eq!(weights(Normalization::SeqMeanTokenSumNorm, 8), scaled);
    assert_eq!(options(PpoPreset::DrGrpo).loss_normalization(), Normalization::SeqMeanTokenSumNorm);
}

/// A teacher whose next word depends on the last one.
fn teacher() -> Bigram {
    let mut teacher = Bigram::new(VOCAB);
    for token in 0..VOCAB {
        let favourite = 1 + (token * 2) % (VOCAB - 1);
        teacher.table.weights[token * VOCAB + favourite] += 3.0;
    }
    teacher
}

#[test]
fn a_student_comes_near_its_teacher_by_the_kl_alone() {
    let options = PpoOptions {
        prompts_per_iteration: 64,
        samples_per_prompt: 1,
        epochs: Some(2),
        ..options(PpoPreset::Distillation)
    };
    let models = PpoModels {
        policy: Bigram::new(VOCAB),
        reference: Some(Box::new(teacher()) as Box<dyn LanguageModel + Send>),
        critic: None::<TokenValues>,
    };
    let mut ppo = Ppo::new(models, setup(options, 2.0)).unwrap();
    let mut kls = Vec::new();
    for iteration in 0..40 {
        let rollouts = sample(ppo.policy(), 64, iteration);
        let scored = ppo.score(&rollouts, &scores(&[0.0; 64])).unwrap();
        for (t, advantage) in scored.advantages.iter().enumerate() {
            // Nothing that comes later is charged to a token.
            close(&[*advantage], &[scored.ref_logprobs[t] - scored.old_logprobs[t]]);
        }
        kls.push(scored.stats.kl.unwrap() / f64::from(mean_length(&rollouts)));
        ppo.update(&scored).unwrap();
    }
    let (first, last) = (kls[0], kls[35..].iter().sum::<f64>() / 5.0);
    assert!(first > 0.5 && last < 0.15, "from {first} to {last} nats a token");
}

fn mean_length(rollouts: &[Rollout]) -> f32 {
    rollouts.iter().map(|rollout| rollout.completion.len() as f32).sum::<f32>()
        / rollouts.len() as f32
}
