use super::{softmax::exp, *};
use crate::simd::KernelChoice;

const KEY: Key = Key { seed: 7, prompt: PromptId(3), sample: 1, position: 0 };

fn draw_with(logits: &[f32], sampling: &SamplingParams, key: Key) -> Drawn {
    let draw = Draw { logits, sampling, history: &[], forbidden: &[], key };
    Sampler::default().draw(&draw).unwrap()
}

/// Draws many times; returns each token's share and the log-probability reported with it.
fn distribution(logits: &[f32], sampling: &SamplingParams) -> Vec<(f64, Option<f32>)> {
    let draws = 20_000;
    let mut sampler = Sampler::default();
    let mut counts = vec![(0, None); logits.len()];
    for position in 0..draws {
        let key = Key { position, ..KEY };
        let draw = Draw { logits, sampling, history: &[], forbidden: &[], key };
        let drawn = sampler.draw(&draw).unwrap();
        let (count, logprob) = &mut counts[drawn.token as usize];
        *count += 1;
        assert!(logprob.is_none_or(|seen| seen == drawn.logprob));
        *logprob = Some(drawn.logprob);
    }
    let share = |count| f64::from(count) / draws as f64;
    counts.into_iter().map(|(count, logprob)| (share(count), logprob)).collect()
}

/// Checks shares and log-probabilities against exact probabilities, 0 meaning never.
fn assert_distribution(logits: &[f32], sampling: &SamplingParams, expected: &[f64]) {
    for (id, ((share, logprob), &p)) in
        distribution(logits, sampling).into_iter().zip(expected).enumerate()
    {
        // Five standard deviations of a share over 20,000 draws.
        let bound = 5.0 * (p * (1.0 - p) / 20_000.0).sqrt();
        assert!((share - p).abs() <= bound, "id {id}: share {share}, expected {p}");
        match logprob {
            Some(logprob) => assert!((f64::from(logprob) - p.ln()).abs() < 1e-5, "id {id}"),
            None => assert!(p < 1e-3, "id {id} never came"),
        }
    }
}

/// Probabilities 0.4, 0.3, 0.2, 0.1 out of order.
#[expect(clippy::approx_constant, reason = "a logarithm among others")]
const FOUR: [f32; 4] = [-1.609_438, -0.916_290_7, -2.302_585, -1.203_972_8];

#[test]
fn plain_sampling_follows_the_softmax() {
    assert_distribution(&FOUR, &SamplingParams::default(), &[0.2, 0.4, 0.1, 0.3]);
}

#[test]
fn temperature_sharpens() {
    let sampling = SamplingParams { temperature: 0.5, ..SamplingParams::default() };
    let squares = [0.04, 0.16, 0.01, 0.09].map(|square| square / 0.3);
    assert_distribution(&FOUR, &sampling, &squares);
}

#[test]
fn top_k_keeps_k_and_renormalises() {
    let sampling = SamplingParams { top_k: 2, ..SamplingParams::default() };
    assert_distribution(&FOUR, &sampling, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
}

#[test]
fn top_k_among_equals_keeps_the_lowest_ids() {
    let sampling = SamplingParams { top_k: 2, ..SamplingParams::default() };
    assert_distribution(&[1.0; 4], &sampling, &[0.5, 0.5, 0.0, 0.0]);
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_p() {
    let at = |top_p| SamplingParams { top_p, ..SamplingParams::default() };
    assert_distribution(&FOUR, &at(0.69), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
    assert_distribution(&FOUR, &at(0.71), &[2.0 / 9.0, 4.0 / 9.0, 0.0, 3.0 / 9.0]);
    assert_distribution(&FOUR, &at(0.01), &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn min_p_is_relative_to_the_most_likely() {
    let at = |min_p| SamplingParams { min_p, ..SamplingParams::default() };
    assert_distribution(&FOUR, &at(0.45), &[2.0 / 9.0, 4.0 / 9.0, 0.0, 3.0 / 9.0]);
    assert_distribution(&FOUR, &at(1.0), &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn top_p_counts_the_mass_that_top_k_left() {
    // Of 0.4, 0.3, 0.2 renormalised, two make 0.78; of the whole they would make 0.7.
    let sampling = SamplingParams { top_k: 3, top_p: 0.75, ..SamplingParams::default() };
    assert_distribution(&FOUR, &sampling, &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
}

#[test]
fn a_wide_nucleus_is_that_of_a_full_sort() {
    let logits: Vec<f32> = (0..1000).map(|id| ((id * 7919) % 1000) as f32 * -0.002).collect();
    let sampling = SamplingParams { top_p: 0.9, ..SamplingParams::default() };
    let mut sampler = Sampler::default();
    let draw =
        Draw { logits: &logits, sampling: &sampling, history: &[], forbidden: &[], key: KEY };
    sampler.draw(&draw).unwrap();
    let mut weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
    weights.sort_by(|a, b| b.total_cmp(a));
    let goal = 0.9 * weights.iter().sum::<f64>();
    let mut mass = 0.0;
    let size = weights
        .iter()
        .take_while(|&weight| {
            let more = mass < goal;
            mass += weight;
            more
        })
        .count();
    assert_eq!(sampler.kept.len(), size);
}

#[test]
fn greedy_takes_the_lowest_of_equals_and_is_certain() {
    let sampling =
        SamplingParams { temperature: 0.0, raw_logprobs: true, ..SamplingParams::default() };
    let drawn = draw_with(&[0.0, 2.0, 2.0], &sampling, KEY);
    assert_eq!((drawn.token, drawn.logprob), (1, 0.0));
    let expected = 2.0 - (1.0 + 2.0 * 2f32.exp()).ln();
    assert!((drawn.raw_logprob.unwrap() - expected).abs() < 1e-6);
}

#[test]
fn repetition_penalty_counts_each_token_once() {
    let sampling = SamplingParams { repetition_penalty: 2.0, ..SamplingParams::default() };
    let draw = Draw {
        logits: &[2.0, -1.0, 0.5],
        sampling: &sampling,
        history: &[0, 1, 0, 0],
        forbidden: &[],
        key: KEY,
    };
    let mut sampler = Sampler::default();
    sampler.draw(&draw).unwrap();
    assert_eq!(sampler.logits, [1.0, -2.0, 0.5]);
    sampler.draw(&draw).unwrap();
    assert_eq!(sampler.logits, [1.0, -2.0, 0.5], "the marks are wiped");
}

#[test]
fn a_forbidden_token_never_comes_and_the_rest_is_renormalised() {
    let sampling = SamplingParams { raw_logprobs: true, ..SamplingParams::default() };
    let mut sampler = Sampler::default();
    for position in 0..1000 {
        let key = Key { position, ..KEY };
        let draw = Draw { logits: &FOUR, sampling: &sampling, history: &[], forbidden: &[1], key };
        let drawn = sampler.draw(&draw).unwrap();
        assert_ne!(drawn.token, 1);
        let raw = drawn.raw_logprob.unwrap();
        assert!((raw - FOUR[drawn.token as usize]).abs() < 1e-6);
        assert!((drawn.logprob - raw + 0.6f32.ln()).abs() < 1e-6);
    }
}

#[test]
fn logits_that_are_not_finite_are_refused() {
    // Wherever they are: in a whole vector of eight or in the rest.
    for place in 0..19 {
        let mut logits = [-1.0; 19];
        logits[place] = 2.0;
        assert_eq!(most_likely(&logits), Some((place as u32, 2.0)));
        logits[place] = f32::NEG_INFINITY;
        assert_eq!(most_likely(&logits), Some((u32::from(place == 0), -1.0)));
        for bad in [f32::NAN, f32::INFINITY] {
            logits[place] = bad;
            assert_eq!(most_likely(&logits), None);
        }
    }
    for bad in [f32::NAN, f32::INFINITY] {
        let logits = [0.0, bad, 1.0];
        let sampling = SamplingParams::default();
        let draw =
            Draw { logits: &logits, sampling: &sampling, history: &[], forbidden: &[], key: KEY };
        assert_eq!(Sampler::default().draw(&draw), None);
    }
    let sampling = SamplingParams::default();
    let draw =
        Draw { logits: &[0.0], sampling: &sampling, history: &[], forbidden: &[0], key: KEY };
    assert_eq!(Sampler::default().draw(&draw), None);
}

#[test]
fn every_field_of_the_key_matters_and_nothing_else() {
    let keys = [
        KEY,
        Key { seed: 8, ..KEY },
        Key { prompt: PromptId(4), ..KEY },
        Key { sample: 2, ..KEY },
        Key { position: 1, ..KEY },
    ];
    let numbers = keys.map(Key::uniform);
    for (index, number) in numbers.iter().enumerate() {
        assert!((0.0..1.0).contains(number));
        assert!(!numbers[..index].contains(number));
    }
    assert_eq!(KEY.uniform(), numbers[0]);
}

#[test]
fn tiny_temperatures_do_not_overflow() {
    let sampling = SamplingParams { temperature: 1e-30, ..SamplingParams::default() };
    assert_eq!(draw_with(&[1e30, 3e30, -1e30], &sampling, KEY).token, 1);
}

#[test]
fn exp_is_within_two_units_in_the_last_place() {
    for step in 0..87_000 {
        let x = -(step as f32) * 1e-3;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(error < 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {error}");
    }
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
}

#[test]
fn log_softmax_matches_f64_to_1e_6() {
    let logits: Vec<f32> = (0..1001).map(|id| ((id * 37) % 101) as f32 * 0.1 - 3.0).collect();
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    for id in [0, 500, 1000] {
        let exact = f64::from(logits[id]) - total.ln();
        assert!((f64::from(log_softmax(&logits, id as u32).unwrap()) - exact).abs() < 1e-6);
    }
}

fn most_likely(logits: &[f32]) -> Option<(u32, f32)> {
    Kernels::default().run(MostLikely { logits })
}

#[test]
fn every_instruction_set_draws_the_same_bits() {
    let logits: Vec<f32> = (0..1003).map(|i| ((i * 7919) % 1009) as f32 / 61.0 - 9.0).collect();
    let sampling = SamplingParams { raw_logprobs: true, ..SamplingParams::default() };
    let tempered = SamplingParams { temperature: 0.7, ..sampling.clone() };
    let draws = |choice| {
        let kernels = Kernels::select(choice)?;
        let mut sampler = Sampler { kernels, ..Sampler::default() };
        let mut draws = Vec::new();
        for sampling in [&sampling, &tempered] {
            for position in 0..50 {
                let key = Key { position, ..KEY };
                let draw = Draw { logits: &logits, sampling, history: &[], forbidden: &[5], key };
                draws.push(sampler.draw(&draw).unwrap());
            }
        }
        Some(draws)
    };
    let plain = draws(KernelChoice::Portable).unwrap();
    for choice in [KernelChoice::Avx2, KernelChoice::Avx512] {
        assert!(draws(choice).is_none_or(|drawn| drawn == plain), "{choice:?}");
    }
}
