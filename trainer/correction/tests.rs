use proptest::prelude::*;

use super::*;

fn options(level: RatioLevel, rule: BoundRule, low: f64, high: f64) -> CorrectionOptions {
    let options = CorrectionOptions { level, rule, low, high, ..CorrectionOptions::default() };
    options.validate().unwrap();
    options
}

/// Weighs a completion whose tokens the trainer thinks so many times as probable as the engine.
fn weigh(ratios: &[f64], options: &CorrectionOptions) -> ImportanceWeights {
    let old: Vec<f32> = ratios.iter().map(|ratio| (ratio.ln() - 2.0) as f32).collect();
    importance_weights(&old, &vec![-2.0; ratios.len()], options, 20.0)
}

#[test]
fn every_level_and_rule_agrees_with_the_table() {
    use BoundRule::{Mask, Truncate};
    use RatioLevel::{Geometric, Sequence, Token};
    // Ratios 0.25, 3 and 1: their product 0.75, its cube root 0.9085603.
    let ratios = [0.25, 3.0, 1.0];
    let (all, none) = ([true; 3], [false; 3]);
    let table = [
        // TIS: min(w, cap), and with a lower bound.
        (Token, Truncate, 0.0, 2.0, [0.25, 2.0, 1.0], [false, true, false]),
        (Token, Truncate, 0.5, 5.0, [0.5, 3.0, 1.0], [true, false, false]),
        // MIS, IcePop: TRL's has no lower bound.
        (Token, Mask, 0.5, 2.0, [0.0, 0.0, 1.0], [true, true, false]),
        (Token, Mask, 0.0, 2.0, [0.25, 0.0, 1.0], [false, true, false]),
        // The product for every token.
        (Sequence, Truncate, 0.0, 3.0, [0.75; 3], none),
        (Sequence, Truncate, 0.9, 3.0, [0.9; 3], all),
        (Sequence, Mask, 0.5, 2.0, [0.75; 3], none),
        (Sequence, Mask, 0.8, 2.0, [0.0; 3], all),
        // Seq-mask-TIS: the tokens' own weights, or nothing.
        (Geometric, Mask, 0.9, 1.1, [0.25, 3.0, 1.0], none),
        (Geometric, Mask, 0.91, 1.1, [0.0; 3], all),
    ];
    for (level, rule, low, high, weights, outside) in table {
        let got = weigh(&ratios, &options(level, rule, low, high));
        for (got, expected) in got.weights.iter().zip(weights) {
            assert!((got - expected).abs() < 1e-6, "{level:?} {rule:?} {low} {high}: {got}");
        }
        assert_eq!(got.outside, outside, "{level:?} {rule:?} {low} {high}");
    }
}

#[test]
fn stats_agree_with_the_table() {
    let mask = options(RatioLevel::Token, BoundRule::Mask, 0.5, 2.0);
    // Weights 0, 0, 1 and 0, 0.
    let completions = [weigh(&[0.25, 3.0, 1.0], &mask), weigh(&[4.0, 0.1], &mask)];
    let stats = CorrectionStats::of(&completions);
    assert!((stats.weights.mean - 0.2).abs() < 1e-6);
    assert_eq!((stats.weights.min, stats.weights.max), (0.0, 1.0));
    assert!((stats.ess - 0.2).abs() < 1e-6); // 1 of 5 tokens
    assert_eq!((stats.outside, stats.outside_sequences), (0.8, 0.5));
}

#[test]
fn exponents_are_bounded() {
    let loose = options(RatioLevel::Token, BoundRule::Truncate, 0.0, f64::MAX);
    let got = importance_weights(&[0.0, -500.0], &[-500.0, 0.0], &loose, 3.0);
    assert_eq!(got.weights, [3f64.exp() as f32, (-3f64).exp() as f32]);
    // A product of many ratios is bounded as a whole.
    let whole = options(RatioLevel::Sequence, BoundRule::Truncate, 0.0, f64::MAX);
    assert_eq!(
        importance_weights(&[0.0; 90], &[-1.0; 90], &whole, 20.0).weights,
        [20f64.exp() as f32; 90]
    );
}

#[test]
fn what_is_no_number_is_not_masked_away() {
    let got = |level, rule| {
        let options = options(level, rule, 0.5, 2.0);
        importance_weights(&[-1.0, f32::NAN], &[-1.0, -1.0], &options, 20.0).weights
    };
    for rule in [BoundRule::Truncate, BoundRule::Mask] {
        assert!(got(RatioLevel::Token, rule)[0] == 1.0 && got(RatioLevel::Token, rule)[1].is_nan());
        assert!(got(RatioLevel::Sequence, rule).iter().all(|weight| weight.is_nan()));
    }
    assert!(got(RatioLevel::Geometric, BoundRule::Mask)[1].is_nan());
}

fn any_options() -> impl Strategy<Value = CorrectionOptions> {
    let kinds = prop_oneof![
        Just((RatioLevel::Token, BoundRule::Truncate)),
        Just((RatioLevel::Token, BoundRule::Mask)),
        Just((RatioLevel::Sequence, BoundRule::Truncate)),
        Just((RatioLevel::Sequence, BoundRule::Mask)),
        Just((RatioLevel::Geometric, BoundRule::Mask)),
    ];
    (kinds, 0.0..=1.0f64, 1.0..5.0f64)
        .prop_map(|((level, rule), low, high)| options(level, rule, low, high))
}

fn any_logprobs() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    prop::collection::vec((-30.0..0.0f32, -30.0..0.0f32), 1..40)
        .prop_map(|pairs| pairs.into_iter().unzip())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn weights_keep_within_their_bounds((old, rollout) in any_logprobs(), options in any_options()) {
        let got = importance_weights(&old, &rollout, &options, 20.0);
        prop_assert_eq!(got.weights.len(), old.len());
        for (&weight, &outside) in got.weights.iter().zip(&got.outside) {
            prop_assert!(weight.is_finite() && weight >= 0.0);
            let within = weight >= options.low as f32 && weight <= options.high as f32;
            match (options.rule, options.level) {
                (BoundRule::Truncate, _) => prop_assert!(within),
                (BoundRule::Mask, _) if outside => prop_assert_eq!(weight, 0.0),
                (BoundRule::Mask, RatioLevel::Geometric) => prop_assert!(f64::from(weight) <= 20f64.exp()),
                (BoundRule::Mask, _) => prop_assert!(within),
            }
        }
    }

    #[test]
    fn a_mask_only_takes_away((old, rollout) in any_logprobs(), kept in any_options()) {
        let truncated = CorrectionOptions { rule: BoundRule::Truncate, ..kept };
        let masked = CorrectionOptions { rule: BoundRule::Mask, ..kept };
        let (cut, dropped) = (
            importance_weights(&old, &rollout, &truncated, 20.0),
            importance_weights(&old, &rollout, &masked, 20.0),
        );
        prop_assert_eq!(&cut.outside, &dropped.outside);
        for ((cut, dropped), outside) in cut.weights.iter().zip(&dropped.weights).zip(cut.outside) {
            prop_assert_eq!(*dropped, if outside { 0.0 } else { *cut });
        }
    }

    #[test]
    fn policies_that_do_not_differ_are_not_weighted((old, _) in any_logprobs(), options in any_options()) {
        let got = importance_weights(&old, &old, &options, 20.0);
        prop_assert!(got.weights.iter().all(|weight| weight.to_bits() == 1f32.to_bits()));
        prop_assert_eq!(CorrectionStats::of(&[got]).ess, 1.0);
    }
}
