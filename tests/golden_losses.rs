//! The trainer's mathematics against TRL's and torch's numbers (`golden/losses.json`, made by `golden/make_losses.py`).
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use rollforge::trainer::{
    advantage::{Mean, gae, whiten},
    distill::Comparison,
    kl::KlEstimator,
    kto::kto,
    loss::{
        RatioClip, Term, bradley_terry, clipped_surrogate, clipped_value, entropy, log_softmax,
    },
    preference::{dpo, ipo, orpo, robust_dpo, rpo_backward_kl, rpo_forward_kl, rpo_squared},
};
use serde_json::Value;

/// Both sides compute in f64; they differ by rounding only.
const F64: f64 = 1e-12;
/// Ours computes in f32.
const F32: f64 = 2e-6;

fn case(name: &str) -> Value {
    let text = include_str!("golden/losses.json");
    let mut cases: Value = serde_json::from_str(text).unwrap();
    cases[name].take()
}

fn number(case: &Value, name: &str) -> f64 {
    case[name].as_f64().unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn rows(value: &Value) -> Vec<Vec<f32>> {
    let to_f32 = |row: &Value| numbers(row).into_iter().map(|x| x as f32).collect();
    value.as_array().unwrap().iter().map(to_f32).collect()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs() / expected.abs().max(1.0);
        assert!(error <= tolerance, "{what}[{i}]: got {got}, expected {expected}");
    }
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// Terms of a mean, each with its derivative before the division.
struct Terms {
    losses: Vec<f64>,
    gradients: Vec<f64>,
    clipped: f64,
}

impl Terms {
    fn new(terms: impl Iterator<Item = Term>) -> Self {
        let terms: Vec<_> = terms.collect();
        let n = terms.len() as f64;
        Self {
            losses: terms.iter().map(|term| term.loss).collect(),
            gradients: terms.iter().map(|term| term.gradient / n).collect(),
            clipped: terms.iter().filter(|term| term.clipped).count() as f64 / n,
        }
    }

    fn assert_match(&self, case: &Value) {
        assert_close("loss", &[mean(&self.losses)], &[number(case, "loss")], F64);
        assert_close("gradient", &self.gradients, &numbers(&case["gradient"]), F64);
        assert_close("clip fraction", &[self.clipped], &[number(case, "clip_fraction")], F64);
        assert!(self.clipped > 0.1, "the case has too few clipped tokens to tell");
    }
}

#[test]
fn the_clipped_surrogate_is_that_of_trl() {
    let case = case("surrogate");
    let clip = RatioClip {
        low: number(&case, "clip_low"),
        high: number(&case, "clip_high"),
        ..RatioClip::default()
    };
    let (logprobs, old) = (numbers(&case["logprobs"]), numbers(&case["old_logprobs"]));
    let advantages = numbers(&case["advantages"]);
    let term = |i: usize| clipped_surrogate(logprobs[i], old[i], advantages[i], &clip);
    let terms = Terms::new((0..logprobs.len()).map(term));
    assert_close("tokens", &terms.losses, &numbers(&case["per_token"]), F64);
    terms.assert_match(&case);
}

#[test]
fn the_clipped_value_loss_is_that_of_trl() {
    let case = case("value");
    let (values, old) = (numbers(&case["values"]), numbers(&case["old_values"]));
    let returns = numbers(&case["returns"]);
    let clip = number(&case, "clip_range");
    let term = |i: usize| clipped_value(values[i], old[i], returns[i], clip);
    Terms::new((0..values.len()).map(term)).assert_match(&case);
}

#[test]
fn advantages_returns_and_whitening_are_those_of_trl() {
    let case = case("gae");
    let (gamma, lambda) = (number(&case, "gamma") as f32, number(&case, "lambda") as f32);
    let (rewards, values) = (rows(&case["rewards"]), rows(&case["values"]));
    let pairs = rewards.iter().zip(&values);
    let advantages: Vec<Vec<f32>> = pairs.map(|(r, v)| gae(r, v, gamma, lambda)).collect();
    let wide = |rows: &[Vec<f32>]| rows.concat().into_iter().map(f64::from).collect::<Vec<_>>();
    let expected = |name: &str| wide(&rows(&case[name]));
    assert_close("advantages", &wide(&advantages), &expected("advantages"), F32);
    let sum = |(a, v): (&f32, &f32)| f64::from(a + v);
    let returns: Vec<f64> = advantages.concat().iter().zip(&values.concat()).map(sum).collect();
    assert_close("returns", &returns, &expected("returns"), F32);

    let whitened = |rows: &[Vec<f32>], mean_is| {
        let mut numbers = rows.concat();
        whiten(&mut numbers, mean_is);
        numbers.into_iter().map(f64::from).collect::<Vec<_>>()
    };
    assert_close("whitened", &whitened(&advantages, Mean::Shift), &expected("whitened"), F32);
    let kept = whitened(&rewards, Mean::Keep);
    assert_close("rewards whitened", &kept, &expected("rewards_whitened"), F32);
}

#[test]
fn kl_estimates_and_their_gradients_are_those_of_trl() {
    let case = case("kl");
    let (logprobs, ref_logprobs) = (numbers(&case["logprobs"]), numbers(&case["ref_logprobs"]));
    let each = |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> {
        logprobs.iter().zip(&ref_logprobs).map(|(&lp, &reference)| f(lp, reference)).collect()
    };
    for (name, estimator) in
        [("k1", KlEstimator::K1), ("k2", KlEstimator::K2), ("k3", KlEstimator::K3)]
    {
        let values = each(&|lp, reference| estimator.value(lp, reference));
        assert_close(name, &values, &numbers(&case[name]), F64);
        let gradients = each(&|lp, reference| estimator.gradient(lp, reference));
        assert_close(name, &gradients, &numbers(&case[format!("{name}_gradient")]), F64);
    }
}

#[test]
fn bradley_terry_with_margin_and_centring_is_that_of_trl() {
    let case = case("bradley_terry");
    let (chosen, rejected) = (numbers(&case["chosen"]), numbers(&case["rejected"]));
    let (margin, center_coef) = (numbers(&case["margin"]), number(&case, "center_coef"));
    let pair = |i: usize| bradley_terry(chosen[i], rejected[i], margin[i], center_coef);
    let pairs: Vec<_> = (0..chosen.len()).map(pair).collect();
    let n = pairs.len() as f64;
    let column = |f: fn(&rollforge::trainer::loss::PairTerm) -> f64| -> Vec<f64> {
        pairs.iter().map(f).collect()
    };
    assert_close("loss", &[mean(&column(|pair| pair.loss))], &[number(&case, "loss")], F64);
    let by_chosen: Vec<f64> = column(|pair| pair.chosen).iter().map(|x| x / n).collect();
    assert_close("chosen", &by_chosen, &numbers(&case["chosen_gradient"]), F64);
    let by_rejected: Vec<f64> = column(|pair| pair.rejected).iter().map(|x| x / n).collect();
    assert_close("rejected", &by_rejected, &numbers(&case["rejected_gradient"]), F64);
}

#[test]
fn preference_losses_are_those_of_trl_and_nemo() {
    let case = case("preference");
    let [beta, smoothing, gamma] = ["beta", "smoothing", "gamma"].map(|name| number(&case, name));
    let [gaps, reward_gaps, margins] =
        ["gap", "reward_gap", "margin"].map(|name| numbers(&case[name]));
    let check = |name: &str, loss: &dyn Fn(usize, f64) -> Term| {
        let terms: Vec<Term> = gaps.iter().enumerate().map(|(i, &gap)| loss(i, gap)).collect();
        let losses: Vec<f64> = terms.iter().map(|term| term.loss).collect();
        assert_close(name, &losses, &numbers(&case[name]["loss"]), F64);
        let gradients: Vec<f64> = terms.iter().map(|term| term.gradient).collect();
        assert_close(name, &gradients, &numbers(&case[name]["gradient"]), F64);
    };
    check("dpo", &|_, gap| dpo(gap, beta, 0.0, 0.0));
    check("cdpo", &|_, gap| dpo(gap, beta, 0.0, smoothing));
    check("odpo", &|i, gap| dpo(gap, beta, margins[i], 0.0));
    check("robust", &|_, gap| robust_dpo(gap, beta, 0.0, smoothing));
    check("ipo", &|_, gap| ipo(gap, beta));
    check("rpo_sq", &|i, gap| rpo_squared(gap, beta, reward_gaps[i]));
    check("rpo_fwd_kl", &|i, gap| rpo_forward_kl(gap, beta, reward_gaps[i]));
    check("rpo_bwd_kl", &|i, gap| rpo_backward_kl(gap, beta, reward_gaps[i]));
    check("simpo", &|_, gap| dpo(gap, beta, gamma, smoothing));

    let odds = &case["orpo"];
    let (chosen, rejected) = (numbers(&odds["chosen"]), numbers(&odds["rejected"]));
    for (i, (&chosen, &rejected)) in chosen.iter().zip(&rejected).enumerate() {
        let got = orpo(chosen, rejected, beta);
        let expected = |name: &str| numbers(&odds[name])[i];
        let expected =
            [expected("loss"), expected("chosen_gradient"), expected("rejected_gradient")];
        assert_close("orpo", &[got.loss, got.chosen, got.rejected], &expected, F64);
    }
}

#[test]
fn unpaired_losses_are_those_of_trl() {
    let case = case("unpaired");
    let [beta, good, bad] =
        ["beta", "desirable_weight", "undesirable_weight"].map(|name| number(&case, name));
    let [logprobs, reference] = ["logprobs", "ref_logprobs"].map(|name| numbers(&case[name]));
    let desirable: Vec<bool> = serde_json::from_value(case["desirable"].clone()).unwrap();
    let n = logprobs.len() as f64;
    for name in ["kto", "kto_clamped", "apo_zero_unpaired"] {
        let case = &case[name];
        let kl = mean(&numbers(&case["moved"])).max(0.0);
        assert_close(name, &[kl], &[number(case, "kl")], F64);
        assert_eq!(kl > 0.0, name == "kto", "{name}");
        let terms: Vec<Term> = (0..logprobs.len())
            .map(|i| {
                let weight = if desirable[i] { good } else { bad };
                kto(logprobs[i] - reference[i], kl, beta, (desirable[i], weight))
            })
            .collect();
        let losses: Vec<f64> = terms.iter().map(|term| term.loss).collect();
        assert_close(name, &[mean(&losses)], &[number(case, "loss")], F64);
        let gradients: Vec<f64> = terms.iter().map(|term| term.gradient / n).collect();
        assert_close(name, &gradients, &numbers(&case["gradient"]), F64);
    }
}

#[test]
fn cross_entropy_and_entropy_are_those_of_torch() {
    let case = case("cross_entropy");
    let temperature = number(&case, "temperature");
    let logits: Vec<Vec<f64>> = case["logits"].as_array().unwrap().iter().map(numbers).collect();
    let targets: Vec<usize> =
        numbers(&case["targets"]).into_iter().map(|target| target as usize).collect();
    let logprobs: Vec<Vec<f64>> = logits.iter().map(|row| log_softmax(row, temperature)).collect();
    let losses: Vec<f64> =
        logprobs.iter().zip(&targets).map(|(row, &target)| -row[target]).collect();
    assert_close("loss", &[mean(&losses)], &[number(&case, "loss")], F64);
    for (row, row_logits) in logits.iter().enumerate() {
        let slope = |(j, lp): (usize, &f64)| {
            let hit = f64::from(u8::from(j == targets[row]));
            (lp.exp() - hit) / temperature / logits.len() as f64
        };
        let gradient: Vec<f64> = logprobs[row].iter().enumerate().map(slope).collect();
        assert_close("gradient", &gradient, &numbers(&case["gradient"][row]), F64);
        let (value, slopes) = entropy(row_logits, temperature);
        assert_close("entropy", &[value], &[numbers(&case["entropy"])[row]], F64);
        assert_close("slope", &slopes, &numbers(&case["entropy_gradient"][row]), F64);
    }
}

#[test]
fn divergences_agree_with_torch() {
    let cases: Value = serde_json::from_str(include_str!("golden/divergences.json")).unwrap();
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let temperature = number(case, "temperature");
        let ids: Vec<usize> = numbers(&case["ids"]).into_iter().map(|id| id as usize).collect();
        let [teacher, student] =
            ["teacher", "student"].map(|name| log_softmax(&numbers(&case[name]), temperature));
        let of = |all: &[f64]| ids.iter().map(|&id| all[id]).collect::<Vec<_>>();
        let comparison = Comparison {
            kl: serde_json::from_value(case["kind"].clone()).unwrap(),
            js_beta: number(case, "beta"),
            renormalize: case["renormalize"].as_bool().unwrap(),
        };
        let (loss, slopes) = comparison.of(&of(&teacher), &of(&student));
        let what = format!("{comparison:?}");
        assert_close(&what, &[loss], &[number(case, "loss")], F64);
        // The way back from log-probs of candidates to logits.
        let sum: f64 = slopes.iter().sum();
        let mut gradient: Vec<f64> = student.iter().map(|log_q| -sum * log_q.exp()).collect();
        ids.iter().zip(slopes).for_each(|(&id, slope)| gradient[id] += slope);
        gradient.iter_mut().for_each(|slope| *slope /= temperature);
        assert_close(&what, &gradient, &numbers(&case["gradient"]), F64);
    }
}
