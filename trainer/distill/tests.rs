//! The divergences against a table and identities, derivatives against finite differences, and whether a student learns.

use super::*;
use crate::trainer::{
    config::{Divergence, OptimizerConfig, ScheduleConfig},
    tabular::Bigram,
};

const KINDS: [Divergence; 3] = [Divergence::Forward, Divergence::Backward, Divergence::Js];

fn compare(kl: Divergence, renormalize: bool) -> Comparison {
    Comparison { kl, js_beta: 0.5, renormalize }
}

fn logs(masses: &[f64]) -> Vec<f64> {
    masses.iter().map(|mass| mass.ln()).collect()
}

#[test]
fn the_losses_agree_with_the_table() {
    // Of the teacher's mass 1/2, 1/4 and a tail of 1/4; of the student's 1/4, 1/4 and a tail of 1/2. Over the two alone that is
    // 2/3, 1/3 and 1/2, 1/2. Mixtures: 3/8, 1/4, 3/8 and 7/12, 5/12.
    let (teacher, student) = (logs(&[0.5, 0.25]), logs(&[0.25, 0.25]));
    let table = [
        (Divergence::Forward, 0.173_286_795, 0.056_633_012),
        (Divergence::Backward, 0.173_286_795, 0.058_891_518),
        (Divergence::Js, 0.042_474_759, 0.014_362_592),
    ];
    for (kl, with_tail, renormalized) in table {
        for (renormalize, expected) in [(false, with_tail), (true, renormalized)] {
            let (loss, _) = compare(kl, renormalize).of(&teacher, &student);
            assert!((loss - expected).abs() < 1e-8, "{kl:?}, {renormalize}: {loss}");
        }
    }
}

#[test]
fn a_student_that_is_its_teacher_has_no_loss_and_no_gradient() {
    let said = logs(&[0.4, 0.3, 0.1, 0.05]);
    for kl in KINDS {
        for renormalize in [false, true] {
            let (loss, slopes) = compare(kl, renormalize).of(&said, &said);
            // What reaches a logit is a slope less its token's share of all.
            let sum: f64 = slopes.iter().sum();
            let reached = slopes.iter().zip(&said).map(|(slope, log_q)| slope - log_q.exp() * sum);
            assert!(loss.abs() < 1e-15, "{kl:?}: {loss}");
            assert!(reached.into_iter().all(|d| d.abs() < 1e-15), "{kl:?}, {renormalize}");
        }
    }
}

#[test]
fn jensen_shannon_is_symmetric_at_a_half_and_has_both_kls_as_limits() {
    let (p, q) = (logs(&[0.5, 0.2, 0.1]), logs(&[0.2, 0.3, 0.4]));
    for renormalize in [false, true] {
        let of = |kl, js_beta, p, q| Comparison { kl, js_beta, renormalize }.of(p, q).0;
        let js = |js_beta, p, q| of(Divergence::Js, js_beta, p, q);
        assert!((js(0.5, &p, &q) - js(0.5, &q, &p)).abs() < 1e-15);
        assert!((js(0.3, &p, &q) - js(0.7, &q, &p)).abs() < 1e-15, "the weights change sides");
        assert!((js(0.3, &p, &q) - js(0.3, &q, &p)).abs() > 1e-4);
        let (forward, backward) =
            (of(Divergence::Forward, 0.5, &p, &q), of(Divergence::Backward, 0.5, &p, &q));
        assert!((forward - backward).abs() > 1e-3);
        assert!((js(1e-6, &p, &q) / 1e-6 - forward).abs() < 1e-5);
        assert!((js(1.0 - 1e-6, &p, &q) / 1e-6 - backward).abs() < 1e-5);
    }
}

#[test]
fn over_the_whole_vocabulary_renormalising_changes_nothing() {
    let (p, q) = (logs(&[0.5, 0.3, 0.2]), logs(&[0.1, 0.3, 0.6]));
    for kl in KINDS {
        assert_eq!(compare(kl, false).of(&p, &q), compare(kl, true).of(&p, &q));
    }
    // The same but for what f32 log-probs leave.
    let rounded = |of: &[f64]| of.iter().map(|&x| f64::from(x as f32)).collect::<Vec<_>>();
    for kl in KINDS {
        let (a, b) =
            (compare(kl, false).of(&rounded(&p), &rounded(&q)), compare(kl, true).of(&p, &q));
        assert!((a.0 - b.0).abs() < 1e-6, "{kl:?}: {a:?} {b:?}");
        assert!(a.1.iter().zip(&b.1).all(|(a, b)| (a - b).abs() < 1e-6), "{kl:?}: {a:?} {b:?}");
    }
}

#[test]
fn forward_is_the_cross_entropy_less_the_teachers_entropy() {
    let (p, q) = ([0.5, 0.3, 0.2], [0.1, 0.3, 0.6]);
    let sum = |of: &dyn Fn(usize) -> f64| (0..3).map(of).sum::<f64>();
    let (cross, entropy) = (sum(&|k| -p[k] * f64::ln(q[k])), sum(&|k| -p[k] * f64::ln(p[k])));
    for renormalize in [false, true] {
        let (loss, _) = compare(Divergence::Forward, renormalize).of(&logs(&p), &logs(&q));
        assert!((loss - (cross - entropy)).abs() < 1e-14, "{loss}");
    }
}

#[test]
fn derivatives_agree_with_finite_differences() {
    let (teacher, student) = (logs(&[0.5, 0.2, 0.1]), logs(&[0.2, 0.3, 0.4]));
    for kl in KINDS {
        for (js_beta, renormalize) in [(0.5, false), (0.5, true), (0.1, false), (0.9, true)] {
            let comparison = Comparison { kl, js_beta, renormalize };
            let (_, slopes) = comparison.of(&teacher, &student);
            for k in 0..3 {
                let at = |step: f64| {
                    let mut student = student.clone();
                    student[k] += step;
                    comparison.of(&teacher, &student).0
                };
                let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
                assert!((slope - slopes[k]).abs() < 1e-8, "{comparison:?}: {slope} {slopes:?}");
            }
        }
    }
}

#[test]
fn a_tail_that_one_side_lacks_stays_finite() {
    let (all, most) = (logs(&[0.6, 0.4]), logs(&[0.5, 0.3]));
    for kl in KINDS {
        for (teacher, student) in [(&all, &most), (&most, &all)] {
            let (loss, slopes) = compare(kl, false).of(teacher, student);
            assert!(loss > 0.0 && loss < 5.0, "{kl:?}: {loss}");
            assert!(slopes.iter().all(|slope| slope.is_finite()), "{kl:?}: {slopes:?}");
        }
    }
}

type Data = Vec<(Vec<u32>, Vec<bool>)>;

/// Sequences of several lengths over 5 tokens.
fn data() -> Data {
    let sequence = |n: usize| -> (Vec<u32>, Vec<bool>) {
        let tokens = (0..3 + n % 4).map(|t| ((n * 7 + t * t + t) % 5) as u32).collect::<Vec<_>>();
        let mask = (0..tokens.len()).map(|t| t > n % 2).collect();
        (tokens, mask)
    };
    (0..9).map(sequence).collect()
}

fn sequences(data: &Data) -> Vec<MaskedSequence<'_>> {
    data.iter().map(|(tokens, mask)| MaskedSequence { tokens, mask }).collect()
}

fn taught<'a>(data: &'a Data, answers: &'a [Answers]) -> Vec<TaughtSequence<'a>> {
    let pairs = sequences(data).into_iter().zip(answers);
    pairs.map(|(sequence, answers)| TaughtSequence { sequence, answers }).collect()
}

/// A teacher that would count up.
fn teacher() -> Bigram {
    let mut teacher = Bigram::new(5);
    for token in 0..5 {
        teacher.table.weights[token * 5 + (token + 1) % 5] += 3.0;
    }
    teacher
}

fn options(kl: Divergence, top_k: usize) -> DistillOptions {
    DistillOptions { kl, top_k, ..DistillOptions::default() }
}

fn student(options: &DistillOptions, lr: f64) -> Distill<Bigram> {
    let optimizer = OptimizerConfig { lr, ..OptimizerConfig::default() };
    let schedule = ScheduleConfig::default();
    Distill::new(Bigram::new(5), options.clone(), &optimizer, &schedule, 100).unwrap()
}

/// Every way of distilling: divergence, tail, temperature, likelihood.
fn ways() -> Vec<DistillOptions> {
    let mut ways = Vec::new();
    for kl in KINDS {
        for (renormalize, temperature, sft_weight) in
            [(true, 1.0, 0.0), (false, 1.0, 0.7), (true, 2.0, 0.7), (false, 0.5, 0.0)]
        {
            let kd_weight = 1.3;
            let more = DistillOptions { renormalize, temperature, ..options(kl, 3) };
            ways.push(DistillOptions { sft_weight, kd_weight, ..more });
        }
    }
    ways
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let data = data();
    for options in ways() {
        let answers = options.ask(&teacher(), &sequences(&data), true).unwrap();
        let taught = taught(&data, &answers);
        let mut trainer = student(&options, 1.0);
        let before = trainer.model().table.weights.clone();
        trainer.step(&taught).unwrap();
        // The learning rate is 1: what has moved is the gradient.
        let moved: Vec<f64> =
            before.iter().zip(&trainer.model().table.weights).map(|(a, b)| a - b).collect();
        for (place, slope) in moved.into_iter().enumerate() {
            let at = |step: f64| {
                let mut trainer = student(&options, 1.0);
                trainer.model_mut().table.weights[place] += step;
                trainer.evaluate(&taught).unwrap().loss
            };
            let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((slope - expected).abs() < 2e-5, "{place}: {slope} {expected} {options:?}");
        }
    }
}

#[test]
fn the_gradient_does_not_depend_on_micro_batches() {
    let data = data();
    for options in ways() {
        let stepped = |micro_batch_tokens, packing| {
            let options = DistillOptions { micro_batch_tokens, packing, ..options.clone() };
            let answers = options.ask(&teacher(), &sequences(&data), true).unwrap();
            let mut trainer = student(&options, 1.0);
            let found = trainer.step(&taught(&data, &answers)).unwrap().found;
            (trainer.model().table.weights.clone(), found)
        };
        let (whole, found) = stepped(1000, true);
        for (budget, packing) in [(1, true), (7, false), (12, true)] {
            let (cut, cut_found) = stepped(budget, packing);
            assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-7), "{options:?}");
            assert!((found.loss - cut_found.loss).abs() < 1e-9);
            assert_eq!(found.top_agreement, cut_found.top_agreement);
        }
    }
}

#[test]
fn a_student_learns_what_its_teacher_says_and_not_what_the_data_says() {
    let data = data();
    for kl in KINDS {
        let options = DistillOptions { sft_weight: 0.0, ..options(kl, 5) };
        let answers = options.ask(&teacher(), &sequences(&data), true).unwrap();
        let taught = taught(&data, &answers);
        let mut trainer = student(&options, 4.0);
        let before = trainer.evaluate(&taught).unwrap();
        for _ in 0..100 {
            trainer.step(&taught).unwrap();
        }
        let after = trainer.evaluate(&taught).unwrap();
        assert!(before.kd_loss > 0.05 && before.top_agreement < 0.8, "{kl:?}: {before:?}");
        assert!(after.kd_loss < 0.05 * before.kd_loss, "{kl:?}: {after:?}");
        assert_eq!(after.top_agreement, 1.0);
        assert!((after.teacher_mass.unwrap() - 1.0).abs() < 1e-6);
        // The data do not count up: their likelihood falls.
        assert!(after.sft_loss.unwrap() > 1.0, "{after:?}");
    }
}

#[test]
fn a_student_that_is_its_teacher_stays() {
    let data = data();
    for options in ways() {
        let options = DistillOptions { sft_weight: 0.0, ..options };
        let answers = options.ask(&Bigram::new(5), &sequences(&data), true).unwrap();
        let mut trainer = student(&options, 1.0);
        let stepped = trainer.step(&taught(&data, &answers)).unwrap();
        assert!(stepped.found.kd_loss.abs() < 1e-6 && stepped.grad_norm < 1e-6, "{stepped:?}");
        assert_eq!(stepped.found.top_agreement, 1.0);
        assert_eq!(stepped.found.sft_loss.is_some(), options.temperature == 1.0);
    }
}

#[test]
fn answers_that_do_not_fit_are_refused() {
    let data = data();
    let options = options(Divergence::Forward, 3);
    let mut answers = options.ask(&teacher(), &sequences(&data), true).unwrap();
    let tell = |options: &DistillOptions, answers: &[Answers]| {
        student(options, 1.0).step(&taught(&data, answers)).unwrap_err().to_string()
    };
    let partial = DistillOptions { renormalize: false, ..options.clone() };
    answers[1].is_whole = false;
    let rule = "a teacher's answers must be log-probs of the whole vocabulary without renormalize";
    assert_eq!(tell(&partial, &answers), format!("{rule}, got others"));
    let found = student(&options, 0.0).step(&taught(&data, &answers)).unwrap().found;
    assert_eq!(found.teacher_mass, None, "it cannot be told");
    answers[1].top.ids.pop();
    let had = answers[1].top.ids.len();
    let rule = "a teacher's answers must be top_k for each loss token";
    assert_eq!(tell(&options, &answers), format!("{rule}, got {had}"));
}

#[test]
fn options_out_of_range_are_named() {
    let tell = |options: DistillOptions| options.validate().unwrap_err().to_string();
    let base = DistillOptions::default;
    assert_eq!(
        tell(DistillOptions { js_beta: 1.0, ..base() }),
        "js_beta must be between 0 and 1, got 1"
    );
    assert_eq!(tell(DistillOptions { top_k: 0, ..base() }), "top_k must be at least 1, got 0");
    assert!(tell(DistillOptions { temperature: 0.0, ..base() }).starts_with("temperature must be"));
    assert!(tell(DistillOptions { kd_weight: 0.0, ..base() }).starts_with("kd_weight must be"));
    assert!(tell(DistillOptions { sft_weight: -1.0, ..base() }).starts_with("sft_weight must be"));
}
