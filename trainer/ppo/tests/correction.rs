//! Importance weights in PPO: what they do to the loss, and what they leave alone.

use super::*;
use crate::trainer::config::{Apply, BoundRule, CorrectionOptions, RatioLevel};

fn always(correction: CorrectionOptions) -> PpoOptions {
    let correction = CorrectionOptions { apply: Some(Apply::Always), ..correction };
    PpoOptions { correction, epochs: Some(1), mini_batches: 2, ..Default::default() }
}

/// Makes every second completion's first token less probable in the engine's eyes.
fn blur(rollouts: &mut [Rollout]) {
    for rollout in rollouts.iter_mut().step_by(2) {
        rollout.rollout_logprobs[0] -= 1.5;
    }
}

/// Returns the gradients of the policy's loss at log-probs that have moved a little, and what they weigh.
fn gradients(ppo: &Ppo<Bigram, TokenValues>, scored: &Trajectories) -> Vec<f32> {
    let loss = PolicyLoss::new(&ppo.setup.options, ppo.state.kl.coef());
    let mut gradients = Vec::new();
    for micro_batch in scored.plan.micro_batches() {
        let logprobs = scored.old_logprobs[micro_batch.rows.clone()].iter().map(|lp| lp + 0.05);
        let entropy = vec![1.0; micro_batch.rows.len()];
        let out = TokenLogprobs { logprobs: logprobs.collect(), entropy, ..Default::default() };
        let tally = &mut PolicyTally::default();
        gradients.extend(loss.gradients(&out, micro_batch, scored, tally).logprobs);
    }
    gradients
}

#[test]
fn an_engine_that_agrees_leaves_the_update_as_it_is_bit_for_bit() {
    for level in [RatioLevel::Token, RatioLevel::Sequence] {
        let updated = |options: PpoOptions| {
            let mut ppo = ppo(options, 1.0);
            let rollouts = sample(ppo.policy(), 40, 1);
            let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
            let stats = ppo.update(&scored).unwrap();
            (ppo.models.policy, ppo.models.critic, stats)
        };
        let corrected = always(CorrectionOptions { level, ..Default::default() });
        let plain = PpoOptions { correction: CorrectionOptions::default(), ..corrected.clone() };
        assert_eq!(updated(corrected), updated(plain));
    }
}

#[test]
fn weights_multiply_the_policy_gradient_and_neither_kl_nor_critic() {
    let mut ppo = ppo(
        PpoOptions {
            kl_in: Some(KlPlace::Loss),
            kl_estimator: Some(KlEstimator::K2),
            kl_coef: Some(0.5),
            ..always(CorrectionOptions::default())
        },
        1.0,
    );
    ppo.policy_mut().table.weights[2] += 1.0;
    let mut rollouts = sample(ppo.policy(), 20, 1);
    blur(&mut rollouts);
    let corrected = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    let unweighted = vec![1.0; corrected.plan.tokens()];
    let plain = Trajectories { importance_weights: unweighted, ..corrected.clone() };
    let at_rest = Trajectories { advantages: vec![0.0; corrected.plan.tokens()], ..plain.clone() };
    let (weighted, plain) = (gradients(&ppo, &corrected), gradients(&ppo, &plain));
    let kl = gradients(&ppo, &at_rest);
    for t in 0..kl.len() {
        let surrogate = plain[t] - kl[t];
        let expected = kl[t] + corrected.importance_weights[t] * surrogate;
        assert!((weighted[t] - expected).abs() < 1e-7, "token {t}");
    }
    assert_eq!(corrected.stats.correction.unwrap().weights.max, 2.0, "exp(1.5) is cut");
}

#[test]
fn the_weighted_loss_agrees_with_finite_differences() {
    let clip = RatioClip { dual: 3.0, ..RatioClip::default() };
    for weight in [0.0, 0.3, 2.0] {
        for advantage in [-1.5, 0.7] {
            for log_ratio in [-0.5, -0.1, 0.1, 0.5] {
                let term = |lp: f64| clipped_surrogate(lp, 0.0, advantage, &clip).times(weight);
                let slope = (term(log_ratio + 1e-6).loss - term(log_ratio - 1e-6).loss) / 2e-6;
                assert!((term(log_ratio).gradient - slope).abs() < 1e-6, "{weight} {advantage}");
            }
        }
    }
}

#[test]
fn what_is_masked_counts_nothing_and_changes_nothing_for_the_others() {
    let mask = |rule| CorrectionOptions { level: RatioLevel::Sequence, rule, ..Default::default() };
    for normalization in
        [Normalization::TokenMean, Normalization::SeqMeanTokenMean, Normalization::SeqMeanTokenSum]
    {
        let scored = |rule| {
            let options =
                PpoOptions { loss_normalization: Some(normalization), ..always(mask(rule)) };
            let mut ppo = ppo(options, 1.0);
            let mut rollouts = sample(ppo.policy(), 20, 1);
            blur(&mut rollouts);
            let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
            let gradients = gradients(&ppo, &scored);
            (scored, gradients)
        };
        let (cut, weighted) = scored(BoundRule::Truncate);
        let (dropped, masked) = scored(BoundRule::Mask);
        assert_eq!(cut.policy_weights, dropped.policy_weights, "the denominators");
        for (i, rows) in dropped.plan.sequence_rows() {
            let expected =
                if i % 2 == 0 { vec![0.0; rows.len()] } else { weighted[rows.clone()].to_vec() };
            assert_eq!(masked[rows], expected, "completion {i}");
        }
        let stats = dropped.stats.correction.unwrap();
        assert_eq!((stats.outside_sequences, stats.weights.min), (0.5, 0.0));
    }
}

#[test]
fn tokens_of_older_weights_are_no_mismatch() {
    let mut ppo = ppo(PpoOptions { epochs: Some(1), ..Default::default() }, 1.0);
    let first = sample(ppo.policy(), 20, 1);
    let scored = ppo.score(&first, &rewards(&first)).unwrap();
    assert_eq!((scored.stats.mismatch.unwrap().max, scored.stats.staleness), (0.0, None));
    ppo.update(&scored).unwrap();
    // Three completions of the first weights, one of the second, and one that a refit cut in two.
    let mut second = sample(ppo.policy(), 5, 2);
    second[..3].clone_from_slice(&first[..3]);
    second[3].versions[0].version = WeightVersion(1);
    second[4] = rollout(4, vec![2, 3, 1], first[0].rollout_logprobs[..1].repeat(3));
    second[4].versions = vec![
        VersionSpan { version: WeightVersion(0), tokens: 2 },
        VersionSpan { version: WeightVersion(1), tokens: 1 },
    ];
    let (fresh, cut) = (second[3].completion.len(), second[4].rollout_logprobs.len());
    second[4].rollout_logprobs[2] -= 3.0;
    let tokens: usize = second.iter().map(|rollout| rollout.completion.len()).sum();
    let scored = ppo.score(&second, &rewards(&second)).unwrap();
    let (parity, staleness) = (scored.stats.mismatch.unwrap(), scored.stats.staleness.unwrap());
    assert_eq!((parity.share * tokens as f64).round() as usize, fresh + 1);
    assert_eq!((staleness.share * tokens as f64).round() as usize, tokens - fresh - 1);
    assert!(cut == 3 && parity.max > 1.0 && staleness.mean > 1e-3, "{parity:?} {staleness:?}");
}

#[test]
fn old_log_probs_of_the_engine_leave_nothing_to_compare() {
    let mut ppo = ppo(PpoOptions { old_logprobs: OldLogprobs::Rollout, ..Default::default() }, 1.0);
    let mut rollouts = sample(ppo.policy(), 20, 1);
    blur(&mut rollouts);
    let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
    assert_eq!((scored.stats.mismatch, scored.stats.staleness), (None, None));
    assert!(scored.stats.metrics().iter().all(|(name, _)| !name.starts_with("parity")));
}

/// An engine that samples hotter than the trainer thinks draws too many improbable words. Weighted, an update leads to
/// where one on the policy's own samples leads; unweighted it leads elsewhere.
#[test]
fn a_corrected_update_is_nearer_to_that_of_an_engine_that_agrees() {
    let update = |correction: CorrectionOptions, heat: f64, seed| {
        let options = PpoOptions {
            correction,
            epochs: Some(1),
            kl_coef: Some(0.0),
            whiten_advantages: Some(false),
            loss_normalization: Some(Normalization::SeqMeanTokenSum),
            ..Default::default()
        };
        let mut ppo = ppo(options, 1.0);
        let mut engine = ppo.policy().clone();
        engine.table.weights.iter_mut().for_each(|logit| *logit /= heat);
        let rollouts = sample(&engine, 4000, seed);
        let scored = ppo.score(&rollouts, &rewards(&rollouts)).unwrap();
        ppo.update(&scored).unwrap();
        ppo.models.policy.table.weights
    };
    let none = CorrectionOptions::default();
    let sequence = CorrectionOptions {
        apply: Some(Apply::Always),
        level: RatioLevel::Sequence,
        high: 1000.0,
        ..none
    };
    let distance =
        |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    let honest = update(none, 1.0, 1);
    let noise = distance(&honest, &update(none, 1.0, 2));
    let plain = distance(&honest, &update(none, 2.0, 2));
    let corrected = distance(&honest, &update(sequence, 2.0, 2));
    assert!(noise < corrected && corrected < plain / 2.0, "{noise} {corrected} {plain}");
}
