//! The loss against a table, the gradient against finite differences, and whether it learns.

use super::*;
use crate::trainer::{
    config::{OptimizerConfig, ScheduleConfig},
    tabular::Bigram,
};

const MASK: [bool; 5] = [false, true, true, true, true];

fn masked(tokens: &'static [u32]) -> MaskedSequence<'static> {
    MaskedSequence { tokens, mask: &MASK[..tokens.len()] }
}

/// Completions that count up are good.
fn samples() -> Vec<KtoSample<'static>> {
    let sample = |sequence, desirable, mismatched| KtoSample {
        sequence: masked(sequence),
        desirable,
        mismatched: masked(mismatched),
        reference: [0.0; 2],
    };
    let mut samples = vec![
        sample(&[0, 1, 2, 3], true, &[0, 4, 4]),
        sample(&[1, 4, 4, 0], false, &[1, 3]),
        sample(&[2, 3], true, &[2, 4]),
        sample(&[3, 4], true, &[3, 1, 0]),
        sample(&[4, 1, 0], false, &[4, 1, 2, 3]),
    ];
    KtoSample::refer(&mut samples, &Bigram::new(5), 100).unwrap();
    samples
}

fn trainer(options: KtoOptions, lr: f64) -> Kto<Bigram> {
    let optimizer = OptimizerConfig { lr, ..OptimizerConfig::default() };
    Kto::new(Bigram::new(5), options, &optimizer, &ScheduleConfig::default(), 100).unwrap()
}

/// Away from the reference, so that no term is at rest and the KL is above 0.
fn moved(options: KtoOptions) -> Kto<Bigram> {
    let mut kto = trainer(options, 1.0);
    (0..25).for_each(|i| kto.model_mut().table.weights[i] += 0.3 * (i % 3) as f64);
    kto
}

#[test]
fn the_loss_agrees_with_the_table() {
    // sigmoid(0.5 (1.5 - 0.5)) = sigmoid(0.5) = 0.6224593, and its slope 0.2350037.
    let good = kto(1.5, 0.5, 0.5, (true, 1.0));
    assert!((good.loss - 0.377_540_7).abs() < 1e-6, "{good:?}");
    assert!((good.gradient + 0.5 * 0.235_003_7).abs() < 1e-6, "{good:?}");
    let bad = kto(1.5, 0.5, 0.5, (false, 2.0));
    assert!((bad.loss - 2.0 * 0.622_459_3).abs() < 1e-6, "{bad:?}");
    assert!((bad.gradient - 0.235_003_7).abs() < 1e-6, "{bad:?}");
}

#[test]
fn the_first_loss_is_half_of_the_weights_and_the_first_kl_0() {
    let options = KtoOptions { desirable_weight: 1.5, ..Default::default() };
    let found = trainer(options, 1.0).step(&samples()).unwrap().found;
    // Three good ones of weight 1.5 and two bad ones of 1, each times 1/2.
    assert!((found.loss - (3.0 * 1.5 + 2.0) / 10.0).abs() < 1e-15, "{found:?}");
    assert_eq!((found.kl, found.chosen, found.margin()), (Some(0.0), Some(0.0), Some(0.0)));
}

#[test]
fn the_gradient_does_not_depend_on_the_token_budget() {
    for loss in [KtoLoss::Kto, KtoLoss::ApoZeroUnpaired] {
        let stepped = |micro_batch_tokens| {
            let mut kto = moved(KtoOptions { micro_batch_tokens, loss, ..Default::default() });
            let found = kto.step(&samples()).unwrap().found;
            (kto.model().table.weights.clone(), found)
        };
        let (whole, found) = stepped(1000);
        assert_eq!(found.kl.is_some_and(|kl| kl > 0.0), loss == KtoLoss::Kto, "{found:?}");
        for budget in [1, 7] {
            let (cut, cut_found) = stepped(budget);
            assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-7), "{loss:?}");
            assert!((found.loss - cut_found.loss).abs() < 1e-9, "{loss:?}");
        }
    }
}

/// The KL is a constant to the gradient: it is held where it was while the weights are moved.
#[test]
fn the_gradient_in_the_weights_agrees_with_finite_differences() {
    let options = KtoOptions { undesirable_weight: 0.7, beta: 0.5, ..Default::default() };
    let kl = moved(options.clone()).evaluate(&samples()).unwrap().kl.unwrap();
    let loss_at = |index: usize, by: f64| {
        let mut kto = moved(options.clone());
        kto.model_mut().table.weights[index] += by;
        let samples = samples();
        let now = sums(kto.model(), &samples, Half::Own, 100).unwrap();
        let terms = now.iter().zip(&samples).map(|(now, sample)| {
            let weight = if sample.desirable { 1.0 } else { 0.7 };
            super::kto(now - sample.reference[0], kl, 0.5, (sample.desirable, weight)).loss
        });
        terms.sum::<f64>() / samples.len() as f64
    };
    for index in [1, 3, 7, 13, 21] {
        // Log-probs are f32.
        let h = 1e-2;
        let slope = (loss_at(index, h) - loss_at(index, -h)) / (2.0 * h);
        let mut kto = moved(options.clone());
        let before = kto.model().table.weights[index];
        kto.step(&samples()).unwrap();
        let gradient = before - kto.model().table.weights[index];
        assert!((gradient - slope).abs() < 2e-3 * slope.abs().max(0.1), "{gradient}, not {slope}");
    }
}

#[test]
fn a_policy_learns_which_completions_are_good() {
    for loss in [KtoLoss::Kto, KtoLoss::ApoZeroUnpaired] {
        let mut kto = trainer(KtoOptions { loss, beta: 0.5, ..Default::default() }, 5.0);
        for _ in 0..100 {
            kto.step(&samples()).unwrap();
        }
        let found = kto.evaluate(&samples()).unwrap();
        assert!(
            found.margin().unwrap() > 1.0 && found.chosen.unwrap() > 0.0,
            "{loss:?}: {found:?}"
        );
    }
}

#[test]
fn a_batch_of_one_kind_has_no_metrics_of_the_other() {
    let good: Vec<_> = samples().into_iter().filter(|sample| sample.desirable).collect();
    let found = trainer(KtoOptions::default(), 1.0).step(&good).unwrap().found;
    assert_eq!((found.rejected, found.margin()), (None, None));
    let names: Vec<&str> = found.metrics().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["loss", "kl", "rewards/chosen", "logps/chosen"]);
}

#[test]
fn no_completions_are_refused() {
    let error = trainer(KtoOptions::default(), 1.0).step(&[]).unwrap_err();
    assert_eq!(error.to_string(), "labelled completions must be at least 1, got 0");
}
