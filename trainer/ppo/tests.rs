mod correction;
mod groups;
mod selection;

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    rollout::{Prompt, PromptId, StopReason, VersionSpan, WeightVersion},
    trainer::{
        batch::{Normalization, PackedBatch},
        config::{KlPlace, ScoreNormalization},
        kl::KlEstimator,
        learner::TokenLogprobs,
        loss::{RatioClip, clipped_surrogate},
        tabular::{Bigram, Table, TokenValues},
    },
};

/// Token 0 begins, token 1 ends; 2 and above are words.
const VOCAB: usize = 6;
const END: u32 = 1;

fn setup(options: PpoOptions, lr: f64) -> PpoSetup {
    PpoSetup {
        options,
        optimizer: OptimizerConfig { lr, ..OptimizerConfig::default() },
        schedule: ScheduleConfig::default(),
        temperature: 1.0,
        seed: 5,
    }
}

fn ppo(options: PpoOptions, lr: f64) -> Ppo<Bigram, TokenValues> {
    let models = PpoModels {
        policy: Bigram::new(VOCAB),
        reference: Some(Box::new(Bigram::new(VOCAB)) as Box<dyn LanguageModel + Send>),
        critic: options.has_critic().then(|| TokenValues(Table::of(vec![0.1; VOCAB]))),
    };
    Ppo::new(models, setup(options, lr)).unwrap()
}

/// Samples completions of at most 8 tokens from the policy.
fn sample(policy: &Bigram, count: usize, seed: u64) -> Vec<Rollout> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let options = LogprobOptions::at(1.0);
    let logprob = |from: u32, to: u32| {
        let batch = PackedBatch::pack([([from, to].as_slice(), [false, true].as_slice())]);
        policy.logprobs(&batch, &options).unwrap().logprobs[0]
    };
    let mut one = |id: usize| {
        let (mut completion, mut logprobs) = (Vec::new(), Vec::new());
        let mut last = 0;
        while completion.len() < 8 && last != END {
            let mut left: f32 = rng.random();
            let next = (0..VOCAB as u32).find(|&to| {
                left -= logprob(last, to).exp();
                left < 0.0
            });
            let next = next.unwrap_or(END);
            logprobs.push(logprob(last, next));
            completion.push(next);
            last = next;
        }
        rollout(id as u64, completion, logprobs)
    };
    (0..count).map(&mut one).collect()
}

fn rollout(id: u64, completion: Vec<u32>, rollout_logprobs: Vec<f32>) -> Rollout {
    let stop = match completion.last() {
        Some(&END) => StopReason::Token(END),
        _ => StopReason::Length,
    };
    let tokens = completion.len() as u32;
    Rollout {
        prompt: Prompt { id: PromptId(id), tokens: vec![0].into() },
        sample: 0,
        completion,
        rollout_logprobs,
        raw_logprobs: None,
        stop,
        versions: vec![VersionSpan { version: WeightVersion(0), tokens }],
    }
}

/// The share of even words.
fn evenness(rollout: &Rollout) -> f32 {
    let even = rollout.completion.iter().filter(|&&token| token >= 2 && token % 2 == 0).count();
    even as f32 / rollout.completion.len() as f32
}

fn rewards(rollouts: &[Rollout]) -> Vec<Reward> {
    rollouts.iter().map(|rollout| Reward::Score(evenness(rollout))).collect()
}

fn close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-5, "{got} instead of {expected}");
    }
}

#[test]
fn nothing_moves_before_the_first_optimizer_step() {
    let options = PpoOptions { mini_batches: 3, micro_batch_tokens: 20, ..Default::default() };
    let mut ppo = ppo(options, 1.0);
    let rollouts = sample(ppo.policy(), 40, 1);
    let trajectories = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    assert_eq!(trajectories.stats.kl, Some(0.0));
    assert_eq!(trajectories.old_logprobs, trajectories.ref_logprobs);
    assert_eq!(trajectories.stats.mismatch.unwrap().max, 0.0);
    let stats = ppo.update(&trajectories).unwrap();
    assert_eq!(stats.first_ratio_error, 0.0);
    assert!(stats.ratio_variance > 0.0 && stats.approx_kl > 0.0, "the later steps do move");
    assert_eq!((stats.policy_steps, stats.episodes), (12, 40));
    let trajectories = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    assert!(trajectories.stats.kl != Some(0.0));
}

#[test]
fn learning_rate_0_leaves_weights_kl_and_ratio_exactly_as_they_are() {
    let options = PpoOptions { mini_batches: 2, entropy_coef: 0.1, ..Default::default() };
    let mut ppo = ppo(options, 0.0);
    for iteration in 0..3 {
        let rollouts = sample(ppo.policy(), 20, iteration);
        let trajectories = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
        let stats = ppo.update(&trajectories).unwrap();
        assert_eq!(trajectories.stats.kl, Some(0.0));
        assert_eq!((stats.ratio, stats.ratio_variance, stats.approx_kl), (1.0, 0.0, 0.0));
        assert_eq!((stats.clip_fraction, stats.values.unwrap().clip_fraction), (0.0, 0.0));
    }
    assert_eq!(ppo.policy().table.weights, Bigram::new(VOCAB).table.weights);
    assert_eq!(ppo.critic().unwrap().0.weights, [0.1; VOCAB]);
}

#[test]
fn gradients_do_not_depend_on_the_token_budget() {
    let kinds = [
        PpoOptions::default(),
        PpoOptions {
            loss_normalization: Some(Normalization::SeqMeanTokenMean),
            kl_in: Some(KlPlace::Loss),
            kl_estimator: Some(KlEstimator::K3),
            entropy_coef: 0.01,
            mask_unfinished: true,
            dual_clip: 3.0,
            ..Default::default()
        },
    ];
    for kind in kinds {
        let updated = |micro_batch_tokens| {
            let options = PpoOptions { micro_batch_tokens, mini_batches: 2, ..kind.clone() };
            let mut ppo = ppo(options, 0.5);
            let rollouts = sample(ppo.policy(), 30, 2);
            let trajectories = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
            let stats = ppo.update(&trajectories).unwrap();
            (ppo.models.policy.table.weights, ppo.models.critic.unwrap().0.weights, stats)
        };
        let (policy, critic, stats) = updated(100_000);
        for budget in [1, 25] {
            let (cut_policy, cut_critic, cut_stats) = updated(budget);
            let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(same(&policy, &cut_policy) && same(&critic, &cut_critic), "budget {budget}");
            assert!((stats.policy_loss - cut_stats.policy_loss).abs() < 1e-6);
        }
    }
}

/// Trains on a reward for 30 iterations. Returns the share of even words before and after.
fn trained(options: PpoOptions, reward: impl Fn(&[Rollout], u64) -> Vec<Reward>) -> (f32, f32) {
    let mut ppo = ppo(PpoOptions { kl_coef: Some(0.0), ..options }, 1.0);
    let share =
        |rollouts: &[Rollout]| rollouts.iter().map(evenness).sum::<f32>() / rollouts.len() as f32;
    let before = share(&sample(ppo.policy(), 200, 77));
    for iteration in 0..30 {
        let rollouts = sample(ppo.policy(), 64, iteration);
        let trajectories = ppo.score(&rollouts, &reward(&rollouts, iteration)).unwrap();
        ppo.update(&trajectories).unwrap();
    }
    (before, share(&sample(ppo.policy(), 200, 78)))
}

#[test]
fn a_policy_learns_what_is_rewarded() {
    let (before, after) = trained(PpoOptions::default(), |rollouts, _| rewards(rollouts));
    assert!(before < 0.5 && after > 0.8, "from {before} to {after}");
}

#[test]
fn a_policy_learns_from_rewards_per_token() {
    let per_token = |rollouts: &[Rollout], _| {
        let even = |&token: &u32| f32::from(u8::from(token >= 2 && token % 2 == 0));
        let reward = |r: &Rollout| Reward::PerToken(r.completion.iter().map(even).collect());
        rollouts.iter().map(reward).collect::<Vec<_>>()
    };
    let options =
        PpoOptions { score_normalization: ScoreNormalization::Running, ..Default::default() };
    let (before, after) = trained(options, per_token);
    assert!(before < 0.5 && after > 0.8, "from {before} to {after}");
}

#[test]
fn shuffled_rewards_teach_nothing() {
    let shuffled = |rollouts: &[Rollout], iteration| {
        let mut rewards = rewards(rollouts);
        rewards.shuffle(&mut ChaCha8Rng::seed_from_u64(iteration));
        rewards
    };
    let (before, after) = trained(PpoOptions::default(), shuffled);
    assert!(after < before + 0.15, "from {before} to {after}");
}

#[test]
fn rewards_advantages_and_returns_agree_with_the_table() {
    let options = PpoOptions {
        kl_coef: Some(0.5),
        missing_eos_penalty: 1.0,
        gae_lambda: Some(1.0),
        whiten_advantages: Some(false),
        ..Default::default()
    };
    let mut ppo = ppo(options, 1.0);
    // The policy moves away from the reference, so that there is a KL.
    ppo.policy_mut().table.weights[2] += 1.0;
    let rollouts = [rollout(0, vec![2, 1], vec![-1.0; 2]), rollout(1, vec![3], vec![-1.0])];
    let scored = ppo.score(&rollouts, &[Reward::Score(2.0), Reward::Score(0.5)]).unwrap();
    let kl: Vec<f32> =
        scored.old_logprobs.iter().zip(&scored.ref_logprobs).map(|(a, b)| a - b).collect();
    for (i, rows) in scored.plan.sequence_rows() {
        let kl = &kl[rows.clone()];
        let rewards = &scored.rewards[rows.clone()];
        if i == 0 {
            // Ended: the score at the last token. The second row of the table has not moved: no KL there.
            close(rewards, &[-0.5 * kl[0], 2.0 - 0.5 * kl[1]]);
            assert!(kl[0] > 0.1 && kl[1] == 0.0);
            // Lambda 1: what is still to come, less the value 0.1.
            close(&scored.advantages[rows.clone()], &[rewards[0] + 2.0 - 0.1, 2.0 - 0.1]);
            close(&scored.returns[rows], &[rewards[0] + 2.0, 2.0]);
        } else {
            close(rewards, &[0.5 - 1.0 - 0.5 * kl[0]]);
        }
    }
    let stats = &scored.stats;
    let total: f32 = kl.iter().sum();
    close(
        &[stats.kl.unwrap() as f32, stats.non_score_reward as f32],
        &[total / 2.0, -0.25 * total],
    );
    assert_eq!(
        (stats.scores.mean, stats.ended, stats.lengths.as_slice()),
        (1.25, 1, &[2.0, 1.0][..])
    );
    assert_eq!(scored.policy_weights.iter().sum::<f32>(), 1.0);
}

#[test]
fn whitened_advantages_have_mean_0_and_variance_1_over_the_whole_batch() {
    let mut ppo = ppo(PpoOptions { mini_batches: 4, ..Default::default() }, 1.0);
    let rollouts = sample(ppo.policy(), 40, 3);
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    let summary = crate::trainer::stats::Summary::of(&scored.advantages);
    assert!(summary.mean.abs() < 1e-6 && (summary.std - 1.0).abs() < 1e-4, "{summary:?}");
}

#[test]
fn unfinished_completions_can_be_kept_from_the_policy_but_not_from_the_critic() {
    let mut ppo = ppo(PpoOptions { mask_unfinished: true, ..Default::default() }, 1.0);
    let rollouts = [rollout(0, vec![2, 1], vec![-1.0; 2]), rollout(1, vec![3, 4], vec![-1.0; 2])];
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    for (i, rows) in scored.plan.sequence_rows() {
        assert_eq!(scored.policy_weights[rows.clone()], [if i == 0 { 0.5 } else { 0.0 }; 2]);
        assert_eq!(scored.value_weights[rows], [0.25; 2]);
    }
}

#[test]
fn a_kl_in_the_loss_brings_the_policy_back_to_the_reference() {
    for kl_estimator in [KlEstimator::K2, KlEstimator::K3] {
        let options = PpoOptions {
            kl_in: Some(KlPlace::Loss),
            kl_coef: Some(1.0),
            kl_estimator: Some(kl_estimator),
            clip_range: Some(0.9),
            ..Default::default()
        };
        let mut ppo = ppo(options, 0.2);
        ppo.policy_mut().table.weights.iter_mut().step_by(2).for_each(|logit| *logit += 0.7);
        let kl = |ppo: &mut Ppo<Bigram, TokenValues>, seed| {
            let rollouts = sample(ppo.policy(), 200, seed);
            let scored = ppo.score(&rollouts, &vec![Reward::Score(0.0); 200]).unwrap();
            assert_eq!(scored.stats.non_score_reward, 0.0);
            (scored.stats.kl.unwrap(), scored)
        };
        let (before, _) = kl(&mut ppo, 0);
        for seed in 1..40 {
            let (_, mut scored) = kl(&mut ppo, seed);
            scored.advantages.fill(0.0);
            ppo.update(&scored).unwrap();
        }
        let (after, _) = kl(&mut ppo, 41);
        assert!(after.abs() < before / 4.0, "{kl_estimator:?}: from {before} to {after}");
    }
}

#[test]
fn while_the_critic_warms_up_the_policy_stays() {
    let options = PpoOptions { critic_warmup_iterations: 1, kl_target: 6.0, ..Default::default() };
    let mut ppo = ppo(options, 1.0);
    let rollouts = sample(ppo.policy(), 20, 1);
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    assert_eq!(ppo.update(&scored).unwrap().policy_steps, 0);
    assert_eq!(ppo.policy().table.weights, Bigram::new(VOCAB).table.weights);
    assert_eq!(ppo.state().kl.coef(), 0.05, "a KL of 0 by force is none below its target");
    assert_ne!(ppo.critic().unwrap().0.weights, [0.1; VOCAB]);
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    assert_eq!(ppo.update(&scored).unwrap().policy_steps, 4);
    assert_ne!(ppo.policy().table.weights, Bigram::new(VOCAB).table.weights);
    assert!(ppo.state().kl.coef() < 0.05);
}

#[test]
fn a_kl_beyond_its_target_ends_the_iteration() {
    let mut ppo = ppo(PpoOptions { target_kl: 1e-6, ..Default::default() }, 1.0);
    let rollouts = sample(ppo.policy(), 20, 1);
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    // The first step starts at a KL of 0, the second sees where it led.
    assert_eq!(ppo.update(&scored).unwrap().policy_steps, 2);
}

#[test]
fn old_log_probs_can_be_the_engines() {
    let options =
        PpoOptions { old_logprobs: OldLogprobs::Rollout, epochs: Some(1), ..Default::default() };
    let mut ppo = ppo(options, 1.0);
    let mut rollouts = sample(ppo.policy(), 20, 1);
    for logprob in rollouts.iter_mut().flat_map(|rollout| &mut rollout.rollout_logprobs) {
        *logprob -= 0.1;
    }
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    let stats = ppo.update(&scored).unwrap();
    assert!((stats.ratio - 0.1f64.exp()).abs() < 1e-6);
}

#[test]
fn a_restored_run_goes_on_bit_for_bit() {
    let options = PpoOptions {
        kl_target: 0.1,
        kl_horizon: 100.0,
        score_normalization: ScoreNormalization::Running,
        mini_batches: 2,
        ..Default::default()
    };
    let iterate = |ppo: &mut Ppo<Bigram, TokenValues>, seed| {
        let rollouts = sample(ppo.policy(), 20, seed);
        let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
        ppo.update(&scored).unwrap();
    };
    let mut whole = ppo(options.clone(), 1.0);
    iterate(&mut whole, 1);
    let text = serde_json::to_string(whole.state()).unwrap();
    let mut resumed = ppo(options, 1.0);
    *resumed.policy_mut() = whole.policy().clone();
    *resumed.critic_mut().unwrap() = whole.critic().unwrap().clone();
    resumed.restore(serde_json::from_str(&text).unwrap());
    iterate(&mut whole, 2);
    iterate(&mut resumed, 2);
    assert_eq!(whole.policy(), resumed.policy());
    assert_eq!(whole.critic(), resumed.critic());
    assert_eq!(whole.state(), resumed.state());
    assert_ne!(whole.state().kl.coef(), 0.05);
}

#[test]
fn what_cannot_be_trained_on_is_refused_by_name() {
    let mut ppo = ppo(PpoOptions::default(), 1.0);
    let good = rollout(7, vec![2, 1], vec![-1.0; 2]);
    let mut refused = |rollout: &Rollout, reward: Reward| {
        ppo.score(std::slice::from_ref(rollout), &[reward]).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&good, Reward::Score(f32::NAN)),
        "the reward of prompt 7, sample 0 must be finite, got NaN"
    );
    assert_eq!(
        refused(&good, Reward::PerToken(vec![1.0])),
        "the per-token rewards of prompt 7, sample 0 must be one for each token, got 1 for 2 tokens"
    );
    assert_eq!(
        refused(&rollout(8, vec![], vec![]), Reward::Score(0.0)),
        "the completion of prompt 8, sample 0 must be at least one token, got 0"
    );
    let short = Rollout { rollout_logprobs: vec![-1.0], ..good.clone() };
    assert_eq!(
        refused(&short, Reward::Score(0.0)),
        "the log-probs of prompt 7, sample 0 must be as many as its tokens, got 1"
    );
    let endless = Rollout { rollout_logprobs: vec![-1.0, f32::NEG_INFINITY], ..good.clone() };
    assert_eq!(
        refused(&endless, Reward::Score(0.0)),
        "a log-prob of prompt 7, sample 0 must be finite, got -inf"
    );
    let undated = Rollout { versions: Vec::new(), ..good.clone() };
    assert_eq!(
        refused(&undated, Reward::Score(0.0)),
        "the version spans of prompt 7, sample 0 must be of as many tokens as it has, got 0"
    );
    assert!(ppo.score(&[good], &[]).is_err());
}

#[test]
fn a_penalty_needs_a_reference() {
    let models = PpoModels {
        policy: Bigram::new(VOCAB),
        reference: None,
        critic: Some(TokenValues(Table::of(vec![0.0; VOCAB]))),
    };
    let error = Ppo::new(models, setup(PpoOptions::default(), 1.0)).err().unwrap();
    assert_eq!(error.to_string(), "kl_coef must be 0 without a reference policy, got 0.05");
}

#[test]
fn an_entropy_bonus_spreads_the_policy() {
    let mut ppo =
        ppo(PpoOptions { kl_coef: Some(0.0), entropy_coef: 1.0, ..Default::default() }, 0.5);
    let mut entropies = Vec::new();
    for seed in 0..20 {
        let rollouts = sample(ppo.policy(), 40, seed);
        let mut scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
        scored.advantages.fill(0.0);
        entropies.push(ppo.update(&scored).unwrap().entropy);
    }
    assert!(entropies[19] > entropies[0] + 0.05, "{entropies:?}");
    assert!(entropies[19] > 0.98 * (VOCAB as f64).ln(), "{entropies:?}");
}

#[test]
fn a_critic_learns_to_foresee() {
    let options = PpoOptions { value_clip_range: 0.0, value_coef: 0.5, ..Default::default() };
    // The policy stays, so that there is something to be foreseen.
    let mut ppo =
        ppo(PpoOptions { critic_warmup_iterations: 99, kl_coef: Some(0.0), ..options }, 1.0);
    let reward =
        |rollout: &Rollout| Reward::Score(if rollout.completion[0] == 2 { 1.0 } else { 0.0 });
    let mut explained = Vec::new();
    for seed in 0..30 {
        let rollouts: Vec<Rollout> = sample(ppo.policy(), 80, seed)
            .into_iter()
            .map(|all| rollout(all.prompt.id.0, vec![all.completion[0], END], vec![-1.0; 2]))
            .collect();
        let earned: Vec<Reward> = rollouts.iter().map(reward).collect();
        let scored = ppo.score(&rollouts, &earned).unwrap();
        explained.push(scored.stats.foresight.as_ref().unwrap().explained_variance);
        ppo.update(&scored).unwrap();
    }
    // After the first word all is known, before it nothing: of the returns' variance about half can be explained.
    assert!(explained[0].abs() < 1e-6 && explained[29] > 0.4, "{explained:?}");
}

#[test]
fn a_mini_batch_that_is_not_finite_is_skipped_and_leaves_no_trace() {
    let options = PpoOptions { mini_batches: 2, epochs: Some(1), ..PpoOptions::default() };
    let (mut skipping, mut without) = (ppo(options.clone(), 0.5), ppo(options, 0.5));
    let rollouts = sample(skipping.policy(), 8, 3);
    let mut trajectories = skipping.score(&rollouts, &rewards(&rollouts)).unwrap();
    let mut half = without.score(&rollouts, &rewards(&rollouts)).unwrap();
    half.plan.mini_batches.truncate(1);
    let bad = trajectories.plan.mini_batches[1][0].rows.start;
    trajectories.advantages[bad] = f32::NAN;
    trajectories.returns[bad] = f32::INFINITY;

    let stats = skipping.update(&trajectories).unwrap();
    let expected = without.update(&half).unwrap();
    assert_eq!(skipping.policy().table, without.policy().table);
    assert_eq!(skipping.critic(), without.critic());
    assert_eq!((stats.skipped(), stats.skipped_in_a_row()), (2, 1));
    let (policy_skips, critic_skips) = (stats.policy_skips, stats.critic_skips);
    assert_eq!(stats, PpoStats { policy_skips, critic_skips, ..expected });
}
