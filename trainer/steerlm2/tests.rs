//! The loss against a table, the gradient against finite differences of the KL, and whether it learns.

use super::*;
use crate::trainer::{
    config::{OptimizerConfig, ScheduleConfig},
    learner::LanguageModel,
    tabular::Bigram,
};

const MASK: [bool; 4] = [false, true, true, true];

type Group = Vec<SteerResponse<'static>>;

/// Responses of one length, so that the gradient is that of the KL; which one is to be chosen is in the numbers.
fn groups() -> Vec<Group> {
    let group = |responses: [(&'static [u32], f64); 3]| {
        let response = |(tokens, log_attributes): (&'static [u32], f64)| SteerResponse {
            sequence: MaskedSequence { tokens, mask: &MASK[..tokens.len()] },
            log_attributes,
            log_prior: -3.0,
            log_proposal: proposal(tokens),
        };
        responses.map(response).to_vec()
    };
    vec![
        group([(&[0, 1, 2], -0.1), (&[0, 3, 3], -2.0), (&[0, 4, 1], -3.0)]),
        group([(&[1, 4, 0, 2], -4.0), (&[1, 2, 3, 4], -0.2), (&[1, 0, 0, 1], -1.0)]),
    ]
}

/// What the policy says of a response as it starts.
fn proposal(tokens: &'static [u32]) -> f64 {
    let packed = crate::trainer::batch::PackedBatch::pack([(tokens, &MASK[..tokens.len()])]);
    let said = Bigram::new(5).logprobs(&packed, &LogprobOptions::default()).unwrap();
    said.logprobs.iter().map(|&logprob| f64::from(logprob)).sum()
}

fn borrow(groups: &[Group]) -> Vec<&[SteerResponse<'static>]> {
    groups.iter().map(Vec::as_slice).collect()
}

fn trainer(options: SteerLm2Options, lr: f64) -> SteerLm2<Bigram> {
    let optimizer = OptimizerConfig { lr, ..OptimizerConfig::default() };
    SteerLm2::new(Bigram::new(5), options, &optimizer, &ScheduleConfig::default(), 100).unwrap()
}

#[test]
fn the_loss_agrees_with_the_table() {
    // Two responses of 1 and 3 tokens whose log-probs are -1 and -2. w = softmax(1, 0) = (0.7310586, 0.2689414), and
    // b = softmax(0.5, 0) = (0.6224593, 0.3775407). Mean tokens: 2.
    let response = |log_attributes, log_proposal| SteerResponse {
        sequence: MaskedSequence { tokens: &[0, 1], mask: &MASK[..2] },
        log_attributes,
        log_prior: 0.0,
        log_proposal,
    };
    let group = [response(-0.5, -1.5), response(-2.0, -2.0)];
    let mut judged = Judged { groups: &[], total: SteerLm2Stats::default() };
    let slopes = judged.judge(&group, &[-1.0, -2.0], &[1, 3]);
    let gap = 0.731_058_6 - 0.622_459_3;
    assert!((slopes[0] + gap / 2.0).abs() < 1e-6 && (slopes[1] - gap / 2.0).abs() < 1e-6);
    assert!((judged.total.loss - (gap * 1.0 - gap * 2.0) / 2.0).abs() < 1e-6);
    // 0.7310586 ln(0.7310586 / 0.6224593) + 0.2689414 ln(0.2689414 / 0.3775407)
    assert!((judged.total.distance - 0.026_344).abs() < 1e-5, "{:?}", judged.total);
}

#[test]
fn the_gradient_does_not_depend_on_the_token_budget() {
    let stepped = |micro_batch_tokens| {
        let options = SteerLm2Options { micro_batch_tokens, ..Default::default() };
        let mut steer = trainer(options, 1.0);
        let found = steer.step(&borrow(&groups())).unwrap().found;
        (steer.model().table.weights.clone(), found)
    };
    let (whole, found) = stepped(1000);
    let (cut, cut_found) = stepped(1);
    assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-7));
    assert!((found.loss - cut_found.loss).abs() < 1e-9 && found.distance > 0.1, "{found:?}");
}

/// With responses of one length, the derivative is that of `KL(w || b)` over that length.
#[test]
fn the_gradient_in_the_weights_is_that_of_the_distance() {
    let groups = [groups().remove(0)];
    for index in [1, 3, 4, 7, 18] {
        let distance = |by: f64| {
            let mut steer = trainer(SteerLm2Options::default(), 1.0);
            steer.model_mut().table.weights[index] += by;
            steer.evaluate(&borrow(&groups)).unwrap().distance
        };
        // Log-probs are f32.
        let h = 1e-2;
        let slope = (distance(h) - distance(-h)) / (2.0 * h) / 2.0;
        let mut steer = trainer(SteerLm2Options::default(), 1.0);
        let before = steer.model().table.weights[index];
        steer.step(&borrow(&groups)).unwrap();
        let gradient = before - steer.model().table.weights[index];
        assert!((gradient - slope).abs() < 2e-3 * slope.abs().max(0.1), "{gradient}, not {slope}");
    }
}

#[test]
fn a_policy_comes_to_choose_as_the_reward_model_would() {
    let mut steer = trainer(SteerLm2Options::default(), 2.0);
    let before = steer.evaluate(&borrow(&groups())).unwrap();
    for _ in 0..200 {
        steer.step(&borrow(&groups())).unwrap();
    }
    let after = steer.evaluate(&borrow(&groups())).unwrap();
    assert!(before.distance > 0.2 && after.distance < 0.02, "{before:?} {after:?}");
}

#[test]
fn groups_without_responses_are_refused() {
    let error = trainer(SteerLm2Options::default(), 1.0).step(&[&[]]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "groups of responses must be at least 1, none of them empty, got 0"
    );
}
