//! Refits: aliases move no byte, copies flip, and a failure at any tensor leaves the old weights serving.

use std::time::Duration;

use super::{
    testing::{of_numbers, random_weights, spec, with_number},
    *,
};
use crate::{
    engine::native::LogitsWanted, ffi::memory::Lease, model::Family, rollout::WeightVersion,
};

const MODES: [RefitMode; 2] = [RefitMode::Alias, RefitMode::Copy];

fn cpu(spec: &ModelSpec, weights: &Weights) -> Cpu {
    let deadline = Duration::from_millis(20);
    let options = CpuOptions { threads: 2, deadline, ..CpuOptions::default() };
    let mut cpu = Cpu::new(spec.clone(), weights, options).unwrap();
    cpu.allocate_kv(4, 8).unwrap();
    cpu
}

fn try_logits(cpu: &mut Cpu) -> Result<Vec<f32>, Error> {
    let mut logits = Vec::new();
    let (tokens, blocks) = ([1, 2, 3, 5, 8, 13], [BlockId(2)]);
    let step =
        SequenceStep { tokens: &tokens, start: 0, blocks: &blocks, logits: LogitsWanted::All };
    cpu.step(&[step], &mut logits)?;
    Ok(logits)
}

fn logits(cpu: &mut Cpu) -> Vec<f32> {
    try_logits(cpu).unwrap()
}

fn addresses(weights: &Weights) -> Vec<usize> {
    weights.iter().map(|(_, tensor)| tensor.memory.address()).collect()
}

#[test]
fn an_alias_reads_the_tensors_where_they_are_and_copies_no_byte() {
    let spec = spec(Family::Qwen3);
    let (first, second) = (random_weights(&spec, 1), random_weights(&spec, 2));
    let mut cpu = cpu(&spec, &first);
    assert_eq!(addresses(cpu.weights()), addresses(&first));
    let report = cpu.refit(&second, RefitMode::Alias, false).unwrap();
    assert_eq!(addresses(cpu.weights()), addresses(&second));
    assert_eq!((report.version, report.bytes), (WeightVersion(2), 0));
    assert_eq!(report.tensors, spec.tensors().len());
}

#[test]
fn a_refit_computes_what_a_fresh_engine_computes_in_either_mode() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let spec = ModelSpec { dtype, ..spec(Family::Qwen2) };
        let all: Vec<_> = (1..5).map(|seed| random_weights(&spec, seed)).collect();
        let fresh: Vec<_> = all.iter().map(|weights| logits(&mut cpu(&spec, weights))).collect();
        for mode in MODES {
            let mut cpu = cpu(&spec, &all[0]);
            // Twice around, so that the second buffer is written to again.
            for round in (1..4).chain(0..4) {
                let report = cpu.refit(&all[round], mode, true).unwrap();
                assert_eq!(report.version, all[round].version());
                assert_eq!(logits(&mut cpu), fresh[round], "{dtype} {mode:?}");
                let reading = all[round].lease().read(Duration::ZERO).unwrap();
                assert_eq!(report.checksum, Some(all[round].checksum(&reading)));
            }
        }
    }
}

#[test]
fn copies_alternate_between_two_buffers() {
    let spec = spec(Family::Llama);
    let all: Vec<_> = (1..6).map(|seed| random_weights(&spec, seed)).collect();
    let mut cpu = cpu(&spec, &all[0]);
    let mut seen = Vec::new();
    for weights in &all[1..] {
        let report = cpu.refit(weights, RefitMode::Copy, false).unwrap();
        assert_eq!(report.bytes, weights.bytes());
        seen.push(addresses(cpu.weights()));
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!((&seen[0], &seen[1]), (&seen[2], &seen[3]));
}

#[test]
fn a_failure_at_any_tensor_leaves_the_old_version_serving_bit_for_bit() {
    for family in [Family::Qwen2, Family::Qwen3] {
        let spec = spec(family);
        let mut cpu = cpu(&spec, &random_weights(&spec, 1));
        let next = random_weights(&spec, 2);
        for before in 0..2 {
            let old = logits(&mut cpu);
            let version = cpu.weights().version();
            for tensor in spec.tensors() {
                let last = tensor.shape.iter().product::<usize>() - 1;
                let poisoned = with_number(&next, &tensor.name, last, f32::NAN);
                for mode in MODES {
                    let error = cpu.refit(&poisoned, mode, false).unwrap_err().to_string();
                    let expected = format!(
                        "refit to version 3 failed at {}, version {version} goes on serving: non-finite value at index {last}",
                        tensor.name
                    );
                    assert_eq!(error, expected);
                    assert_eq!(cpu.weights().version(), version);
                    assert_eq!(logits(&mut cpu), old, "{family:?} {before} {}", tensor.name);
                }
            }
            // The second time around a copy serves, and the failed copies went where the next one goes.
            cpu.refit(&next, RefitMode::Copy, false).unwrap();
        }
    }
}

#[test]
fn missing_extra_and_misshapen_tensors_are_listed_and_change_nothing() {
    let spec = spec(Family::Llama);
    let weights = random_weights(&spec, 1);
    let mut cpu = cpu(&spec, &weights);
    let old = logits(&mut cpu);
    let lease = Lease::default();
    let other = random_weights(&ModelSpec { vocab_size: 99, qkv_bias: true, ..spec.clone() }, 2);
    let tensors = other.iter().filter(|(name, _)| *name != "model.norm.weight");
    let tensors = tensors.map(|(name, tensor)| {
        let numbers = vec![1.0; tensor.elements()];
        (name.to_owned(), of_numbers(numbers, tensor.shape.clone(), tensor.dtype, &lease))
    });
    let other = Weights::new(WeightVersion(2), lease.clone(), tensors.collect());
    for mode in MODES {
        let error = cpu.refit(&other, mode, false).unwrap_err().to_string();
        assert!(error.contains("missing model.norm.weight"), "{error}");
        assert!(error.contains("extra model.layers.0.self_attn.k_proj.bias"), "{error}");
        assert!(error.contains("lm_head.weight must be [101, 36], got [99, 36]"), "{error}");
        assert_eq!(logits(&mut cpu), old);
    }
}

#[test]
fn an_alias_of_another_format_is_refused_and_a_copy_converts() {
    let spec = spec(Family::Mistral);
    let mut cpu = cpu(&spec, &random_weights(&spec, 1));
    let old = logits(&mut cpu);
    let half = random_weights(&ModelSpec { dtype: Dtype::F16, ..spec.clone() }, 2);
    let error = cpu.refit(&half, RefitMode::Alias, false).unwrap_err().to_string();
    assert!(error.contains("an alias must be f32, got f16"), "{error}");
    assert_eq!(logits(&mut cpu), old);
    cpu.refit(&half, RefitMode::Copy, false).unwrap();
    assert_ne!(logits(&mut cpu), old);
    assert_eq!(cpu.weights().get("model.norm.weight").unwrap().dtype, Dtype::F32);
}

#[test]
fn a_bf16_engine_takes_f32_weights_as_if_they_had_been_rounded_first() {
    let spec = spec(Family::Qwen2);
    let rounded = ModelSpec { dtype: Dtype::Bf16, ..spec.clone() };
    let expected = logits(&mut cpu(&rounded, &random_weights(&rounded, 2)));
    let mut converted = cpu(&rounded, &random_weights(&rounded, 1));
    converted.refit(&random_weights(&spec, 2), RefitMode::Copy, false).unwrap();
    assert_eq!(logits(&mut converted), expected);
    assert_eq!(logits(&mut cpu(&rounded, &random_weights(&spec, 2))), expected);
}

#[test]
fn weights_written_to_after_an_alias_are_noticed_until_the_next_refit() {
    let spec = spec(Family::Llama);
    let weights = random_weights(&spec, 1);
    let mut cpu = cpu(&spec, &weights);
    let old = logits(&mut cpu);
    drop(weights.lease().write(Duration::ZERO).unwrap());
    let error = try_logits(&mut cpu).unwrap_err();
    assert!(matches!(error, Error::WeightsMoved { version: WeightVersion(1) }), "{error}");
    cpu.refit(&weights, RefitMode::Alias, false).unwrap();
    assert_eq!(logits(&mut cpu), old);
}

#[test]
fn numbers_that_somebody_found_finite_are_looked_at_again_after_the_next_write() {
    let spec = spec(Family::Llama);
    let poisoned = with_number(&random_weights(&spec, 2), "model.norm.weight", 3, f32::NAN);
    let trusted = poisoned.clone().found_finite();
    let mut cpu = cpu(&spec, &random_weights(&spec, 1));
    assert!(cpu.refit(&poisoned, RefitMode::Alias, false).is_err());
    cpu.refit(&trusted, RefitMode::Alias, false).unwrap();
    drop(trusted.lease().write(Duration::ZERO).unwrap());
    for weights in [&poisoned, &trusted] {
        let error = cpu.refit(weights, RefitMode::Alias, false).unwrap_err().to_string();
        assert!(error.ends_with("non-finite value at index 3"), "{error}");
    }
}

#[test]
fn a_writer_that_does_not_let_go_is_named_after_the_deadline() {
    let spec = spec(Family::Llama);
    let weights = random_weights(&spec, 1);
    let mut cpu = cpu(&spec, &weights);
    let writing = weights.lease().write(Duration::ZERO).unwrap();
    let waited = "the engine waited 0.0 s for the writer of the weights; weights of version 1";
    assert_eq!(try_logits(&mut cpu).unwrap_err().to_string(), waited);
    for mode in MODES {
        assert_eq!(cpu.refit(&weights, mode, false).unwrap_err().to_string(), waited);
    }
    drop(writing);
    cpu.refit(&weights, RefitMode::Copy, false).unwrap();
}

#[test]
fn weights_that_once_served_can_be_put_back_from_the_engines_own_buffer() {
    let spec = spec(Family::Llama);
    let mut cpu = cpu(&spec, &random_weights(&spec, 1));
    cpu.refit(&random_weights(&spec, 2), RefitMode::Copy, false).unwrap();
    let (kept, old) = (cpu.weights().clone(), logits(&mut cpu));
    cpu.refit(&random_weights(&spec, 3), RefitMode::Copy, false).unwrap();
    // What is kept lies in the buffer that this copy would go into.
    cpu.refit(&kept, RefitMode::Copy, false).unwrap();
    assert_eq!(logits(&mut cpu), old);
}

#[test]
fn weights_that_are_not_finite_are_refused_from_the_start() {
    let spec = spec(Family::Llama);
    let weights = with_number(&random_weights(&spec, 1), "model.norm.weight", 3, f32::INFINITY);
    let error = Cpu::new(spec, &weights, CpuOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "model.norm.weight: non-finite value at index 3");
}
