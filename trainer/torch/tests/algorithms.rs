//! The algorithms over libtorch's models: what must hold exactly, what must not depend on micro-batches, what is learned.

use std::time::Duration;

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::super::{LearningModel, LogprobOptions, Model, ModelOptions, testing};
use crate::{
    model::Head,
    rollout::{Dtype, Prompt, PromptId, Rollout, StopReason, VersionSpan, WeightVersion, Weights},
    trainer::{
        batch::{MaskedSequence, PackedBatch},
        config::{
            DpoOptions, OptimizerConfig, PpoOptions, RewardModelOptions, ScheduleConfig, SftOptions,
        },
        dpo::{Dpo, DpoPair},
        learner::LanguageModel,
        ppo::{Ppo, PpoModels, PpoSetup, PpoStats, Trajectories},
        referred::Referred,
        reward::Reward,
        reward_model::{PreferencePair, RewardTrainer},
        sft::Sft,
    },
};

const END: u32 = 1;

fn optimizer(lr: f64) -> OptimizerConfig {
    // Without clipping, the first moment after one step is a tenth of the gradient.
    OptimizerConfig { lr, max_grad_norm: 0.0, ..OptimizerConfig::default() }
}

fn learner(head: Head, options: ModelOptions, lr: f64) -> LearningModel {
    let model = testing::model(&testing::spec().with_head(head), options);
    LearningModel::new(model, &optimizer(lr)).unwrap()
}

type TorchPpo = Ppo<LearningModel, LearningModel>;

fn ppo(options: PpoOptions, model: ModelOptions, lr: f64) -> TorchPpo {
    let frozen = ModelOptions { frozen: true, ..model };
    let reference = testing::model(&testing::spec(), frozen);
    let models = PpoModels {
        policy: learner(Head::LanguageModel, model, lr),
        reference: Some(Box::new(reference) as Box<dyn LanguageModel + Send>),
        critic: Some(learner(Head::Score, model, lr)),
    };
    let setup = PpoSetup {
        options,
        optimizer: optimizer(lr),
        schedule: ScheduleConfig::default(),
        temperature: 0.7,
        seed: 3,
    };
    Ppo::new(models, setup).unwrap()
}

/// Completions of random tokens and lengths, as if an engine had sampled them.
fn rollouts(count: u64) -> Vec<Rollout> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut one = |id| {
        let mut tokens = |most: usize| -> Vec<u32> {
            (0..rng.random_range(1..=most)).map(|_| rng.random_range(2..23)).collect()
        };
        let (prompt, completion) = (tokens(6), tokens(9));
        let logprobs = vec![-3.0; completion.len()];
        rollout(id, prompt, completion, logprobs)
    };
    (0..count).map(&mut one).collect()
}

fn rollout(id: u64, prompt: Vec<u32>, completion: Vec<u32>, logprobs: Vec<f32>) -> Rollout {
    let tokens = completion.len() as u32;
    let ended = completion.last() == Some(&END);
    Rollout {
        prompt: Prompt { id: PromptId(id), tokens: prompt.into() },
        sample: 0,
        completion,
        rollout_logprobs: logprobs,
        raw_logprobs: None,
        stop: if ended { StopReason::Token(END) } else { StopReason::Length },
        versions: vec![VersionSpan { version: WeightVersion(0), tokens }],
    }
}

/// The share of even tokens.
fn evenness(rollout: &Rollout) -> f32 {
    let even = rollout.completion.iter().filter(|&&token| token % 2 == 0).count();
    even as f32 / rollout.completion.len() as f32
}

fn rewards(rollouts: &[Rollout]) -> Vec<Reward> {
    rollouts.iter().map(|rollout| Reward::Score(evenness(rollout))).collect()
}

fn iterate(ppo: &mut TorchPpo, rollouts: &[Rollout]) -> (Trajectories, PpoStats) {
    let trajectories = ppo.score(rollouts, &rewards(rollouts)).unwrap();
    let stats = ppo.update(&trajectories).unwrap();
    (trajectories, stats)
}

/// Every way a model can be computed.
fn model_options() -> Vec<ModelOptions> {
    [(Dtype::F32, false), (Dtype::F32, true), (Dtype::Bf16, false), (Dtype::Bf16, true)]
        .map(|(compute, activation_checkpointing)| ModelOptions {
            compute,
            activation_checkpointing,
            ..ModelOptions::default()
        })
        .into()
}

fn checksum(learner: &LearningModel) -> String {
    let weights = learner.model.weights(WeightVersion(0), Dtype::F32).unwrap();
    weights.checksum(&weights.lease().read(Duration::from_secs(1)).unwrap())
}

/// Returns the gradient of the only optimizer step, times a tenth.
fn gradient(learner: &LearningModel) -> Weights {
    let state = learner.optimizer.state(&learner.model).unwrap();
    assert_eq!(state.steps, 1);
    state.exp_avg
}

fn assert_same_gradient(got: &LearningModel, expected: &LearningModel) {
    let (got, expected) = (gradient(got), gradient(expected));
    for ((name, got), (_, expected)) in
        testing::values(&got).iter().zip(testing::values(&expected).iter())
    {
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let difference = norm(&mut got.iter().zip(expected).map(|(a, b)| a - b));
        let size = norm(&mut expected.iter().copied());
        assert!(difference <= 1e-5 * size, "{name}: {difference} of {size}");
    }
}

#[test]
fn the_first_ratio_is_exactly_1_and_the_first_kl_exactly_0() {
    for model in model_options() {
        let options = PpoOptions { mini_batches: 3, micro_batch_tokens: 40, ..Default::default() };
        let mut ppo = ppo(options, model, 1e-2);
        let (trajectories, stats) = iterate(&mut ppo, &rollouts(24));
        assert_eq!(trajectories.old_logprobs, trajectories.ref_logprobs, "{model:?}");
        assert_eq!((trajectories.stats.kl, stats.first_ratio_error), (Some(0.0), 0.0), "{model:?}");
        assert!(stats.approx_kl > 0.0, "the later steps do move");
    }
}

#[test]
fn at_learning_rate_0_weights_kl_and_ratio_stay_exactly_as_they_are() {
    for model in model_options() {
        let options = PpoOptions {
            mini_batches: 2,
            micro_batch_tokens: 40,
            entropy_coef: 0.1,
            ..Default::default()
        };
        let mut ppo = ppo(options, model, 0.0);
        let before = [checksum(ppo.policy()), checksum(ppo.critic().unwrap())];
        for _ in 0..2 {
            let (trajectories, stats) = iterate(&mut ppo, &rollouts(16));
            assert_eq!(trajectories.stats.kl, Some(0.0));
            assert_eq!((stats.ratio, stats.ratio_variance, stats.approx_kl), (1.0, 0.0, 0.0));
            assert!(stats.policy_grad_norm > 0.0 && stats.values.unwrap().grad_norm > 0.0);
        }
        assert_eq!([checksum(ppo.policy()), checksum(ppo.critic().unwrap())], before, "{model:?}");
    }
}

#[test]
fn ppo_gradients_do_not_depend_on_the_token_budget() {
    let updated = |micro_batch_tokens| {
        let options = PpoOptions {
            micro_batch_tokens,
            epochs: Some(1),
            entropy_coef: 0.01,
            ..Default::default()
        };
        let mut ppo = ppo(options, ModelOptions::default(), 1e-2);
        iterate(&mut ppo, &rollouts(20));
        ppo
    };
    let whole = updated(100_000);
    for budget in [1, 33] {
        let cut = updated(budget);
        assert_same_gradient(cut.policy(), whole.policy());
        assert_same_gradient(cut.critic().unwrap(), whole.critic().unwrap());
    }
}

/// Sequences of a prompt token and then a pattern that depends on it.
fn sequences() -> Vec<(Vec<u32>, Vec<bool>)> {
    let one = |i: u32| {
        let tokens: Vec<u32> = (0..3 + i % 5).map(|t| 2 + (i + 3 * t) % 20).collect();
        let mask = (0..tokens.len()).map(|t| t > 0).collect();
        (tokens, mask)
    };
    (0..30).map(one).collect()
}

fn sft(micro_batch_tokens: usize, lr: f64) -> Sft<LearningModel> {
    let learner = learner(Head::LanguageModel, ModelOptions::default(), lr);
    let options = SftOptions { micro_batch_tokens, ..Default::default() };
    Sft::new(learner, options, &optimizer(lr), &ScheduleConfig::default(), 100).unwrap()
}

#[test]
fn packed_sequences_have_the_loss_and_gradient_of_sequences_alone() {
    let data = sequences();
    let batch: Vec<_> = data.iter().map(|(tokens, mask)| MaskedSequence { tokens, mask }).collect();
    let stepped = |budget| {
        let mut sft = sft(budget, 1e-2);
        let stats = sft.step(&batch).unwrap().found;
        (sft, stats)
    };
    let (packed, packed_stats) = stepped(100_000);
    let (alone, alone_stats) = stepped(1);
    assert_same_gradient(packed.model(), alone.model());
    assert!((packed_stats.loss - alone_stats.loss).abs() < 1e-5 * alone_stats.loss);
    assert_eq!(packed_stats.mean_token_accuracy, alone_stats.mean_token_accuracy);
}

#[test]
fn a_model_is_fine_tuned() {
    let data = sequences();
    let batch: Vec<_> = data.iter().map(|(tokens, mask)| MaskedSequence { tokens, mask }).collect();
    let mut sft = sft(64, 2e-2);
    let before = sft.evaluate(&batch).unwrap();
    for _ in 0..100 {
        sft.step(&batch).unwrap();
    }
    let after = sft.evaluate(&batch).unwrap();
    assert!(before.mean_token_accuracy < 0.2 && after.mean_token_accuracy > 0.9, "{after:?}");
}

#[test]
fn a_reward_model_learns_which_is_better_whatever_the_token_budget() {
    let all = rollouts(40);
    let sequences: Vec<Vec<u32>> =
        all.iter().map(|rollout| vec![2; 1 + rollout.completion.len()]).collect();
    let better: Vec<Vec<u32>> =
        sequences.iter().map(|tokens| [tokens.as_slice(), &[5]].concat()).collect();
    let worse: Vec<Vec<u32>> =
        sequences.iter().map(|tokens| [&[3], tokens.as_slice()].concat()).collect();
    let pairs: Vec<_> = better
        .iter()
        .zip(&worse)
        .map(|(chosen, rejected)| PreferencePair { chosen, rejected, margin: Some(0.5) })
        .collect();
    let trainer = |micro_batch_tokens| {
        let options =
            RewardModelOptions { micro_batch_tokens, center_coef: 0.01, ..Default::default() };
        let model = learner(Head::Score, ModelOptions::default(), 1e-2);
        let schedule = ScheduleConfig::default();
        RewardTrainer::new(model, options, &optimizer(1e-2), &schedule, 100).unwrap()
    };
    let (mut whole, mut cut) = (trainer(100_000), trainer(1));
    whole.step(&pairs).unwrap();
    cut.step(&pairs).unwrap();
    assert_same_gradient(cut.model(), whole.model());
    for _ in 0..60 {
        whole.step(&pairs).unwrap();
    }
    assert_eq!(whole.evaluate(&pairs).unwrap().accuracy, 1.0);
}

type Masked = (Vec<u32>, Vec<bool>);

/// Sequences as [`sequences`] makes them, each after another that is as long or longer, whose first token is the prompt.
fn sequence_pairs() -> Vec<[Masked; 2]> {
    let other = |(tokens, _): &Masked| {
        let mut tokens: Vec<u32> = tokens.iter().map(|token| 2 + (token * 5) % 19).collect();
        tokens.extend(&[3, 4][..tokens.len() % 3]);
        let mask = (0..tokens.len()).map(|t| t > 0).collect();
        (tokens, mask)
    };
    sequences().into_iter().map(|sequence| [other(&sequence), sequence]).collect()
}

fn dpo_pair([rejected, chosen]: &[Masked; 2]) -> DpoPair<'_> {
    let [chosen, rejected] =
        [chosen, rejected].map(|(tokens, mask)| MaskedSequence { tokens, mask });
    DpoPair { chosen, rejected, margin: None, rewards: [None; 2], reference: [0.0; 2] }
}

#[test]
fn dpo_starts_at_ln_2_and_learns_which_is_better_whatever_the_token_budget() {
    let data = sequence_pairs();
    let trainer = |micro_batch_tokens, model| {
        let options = DpoOptions { micro_batch_tokens, ..Default::default() };
        let policy = learner(Head::LanguageModel, model, 1e-2);
        let frozen = testing::model(&testing::spec(), ModelOptions { frozen: true, ..model });
        let mut pairs: Vec<DpoPair<'_>> = data.iter().map(dpo_pair).collect();
        let said =
            |pairs: &[DpoPair<'_>]| pairs.iter().map(|pair| pair.reference).collect::<Vec<_>>();
        DpoPair::refer(&mut pairs, &frozen, micro_batch_tokens).unwrap();
        let reference = said(&pairs);
        DpoPair::refer(&mut pairs, &policy, micro_batch_tokens).unwrap();
        assert_eq!(reference, said(&pairs), "a copy says what the policy says");
        let schedule = ScheduleConfig::default();
        (Dpo::new(policy, options, &optimizer(1e-2), &schedule, 100).unwrap(), pairs)
    };
    for model in model_options() {
        let (mut dpo, pairs) = trainer(40, model);
        let stats = dpo.step(&pairs).unwrap().found;
        assert!((stats.loss - std::f64::consts::LN_2).abs() < 1e-15, "{model:?}: {stats:?}");
        assert_eq!(stats.kl, Some(0.0), "{model:?}");
    }
    let stepped = |budget| {
        let (mut dpo, pairs) = trainer(budget, ModelOptions::default());
        dpo.step(&pairs).unwrap();
        (dpo, pairs)
    };
    let ((mut whole, pairs), (cut, _)) = (stepped(100_000), stepped(1));
    assert_same_gradient(cut.model(), whole.model());
    for _ in 0..40 {
        whole.step(&pairs).unwrap();
    }
    assert_eq!(whole.evaluate(&pairs).unwrap().accuracy, 1.0);
}

/// Samples completions of at most 6 tokens from a model, at PPO's temperature.
fn sample(model: &Model, count: u64, seed: u64) -> Vec<Rollout> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sequences = vec![vec![0u32]; count as usize];
    for _ in 0..6 {
        let mut batch = PackedBatch::default();
        for tokens in sequences.iter().filter(|tokens| tokens.last() != Some(&END)) {
            let mut next = tokens.clone();
            next.push(END);
            batch.push(&next, &(0..next.len()).map(|t| t == tokens.len()).collect::<Vec<_>>());
        }
        if batch.tokens.is_empty() {
            break;
        }
        let logits = model.logits(&batch).unwrap();
        let mut rows = logits.chunks_exact(model.spec().vocab_size);
        for tokens in sequences.iter_mut().filter(|tokens| tokens.last() != Some(&END)) {
            let row: Vec<f64> = rows.next().unwrap().iter().map(|&z| f64::from(z)).collect();
            let logprobs = crate::trainer::loss::log_softmax(&row, 0.7);
            let mut left: f64 = rng.random();
            let next = logprobs.iter().position(|lp| {
                left -= lp.exp();
                left < 0.0
            });
            tokens.push(next.map_or(END, |token| token as u32));
        }
    }
    let one = |(id, tokens): (usize, Vec<u32>)| {
        let mask: Vec<bool> = (0..tokens.len()).map(|t| t > 0).collect();
        let batch = PackedBatch::pack([(tokens.as_slice(), mask.as_slice())]);
        let logprobs = model.logprobs(&batch, &LogprobOptions::at(0.7)).unwrap().logprobs;
        rollout(id as u64, vec![0], tokens[1..].to_vec(), logprobs)
    };
    sequences.into_iter().enumerate().map(one).collect()
}

/// Trains for 20 iterations; returns the share of even tokens before and after.
fn trained(reward: impl Fn(&[Rollout], u64) -> Vec<Reward>) -> (f32, f32) {
    let options = PpoOptions { kl_coef: Some(0.01), mini_batches: 2, ..Default::default() };
    let mut ppo = ppo(options, ModelOptions::default(), 1e-2);
    let share =
        |rollouts: &[Rollout]| rollouts.iter().map(evenness).sum::<f32>() / rollouts.len() as f32;
    let before = share(&sample(&ppo.policy().model, 100, 100));
    for iteration in 0..20 {
        let mut rollouts = sample(&ppo.policy().model, 48, iteration);
        for span in rollouts.iter_mut().flat_map(|rollout| &mut rollout.versions) {
            span.version = ppo.version();
        }
        let trajectories = ppo.score(&rollouts, &reward(&rollouts, iteration)).unwrap();
        let mismatch = trajectories.stats.mismatch.unwrap();
        assert!(mismatch.max < 1e-4, "a sequence alone and in a batch: {mismatch:?}");
        ppo.update(&trajectories).unwrap();
    }
    (before, share(&sample(&ppo.policy().model, 100, 101)))
}

#[test]
fn a_policy_learns_what_is_rewarded() {
    let (before, after) = trained(|rollouts, _| rewards(rollouts));
    assert!(before < 0.7 && after > 0.9, "from {before} to {after}");
}

#[test]
fn shuffled_rewards_teach_nothing() {
    let (before, after) = trained(|rollouts, iteration| {
        let mut rewards = rewards(rollouts);
        rewards.shuffle(&mut ChaCha8Rng::seed_from_u64(iteration));
        rewards
    });
    assert!(after < before + 0.2, "from {before} to {after}");
}
