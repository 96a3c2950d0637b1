//! The transformer against its slow twin, against itself in other batches, and through refits.

use std::time::Duration;

use super::{
    reference::Reference,
    testing::{random_weights, spec},
    *,
};
use crate::{
    engine::native::LogitsWanted::{self, All, Last},
    model::Family,
};

const FAMILIES: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];
const BLOCK_SIZE: usize = 4;

/// Returns a model of each family, and one of seven heads to a KV head, each longer than four registers of any set: as
/// in models of use, attention then takes several heads and several registers at a time.
fn specs() -> impl Iterator<Item = ModelSpec> {
    let wide = ModelSpec { head_dim: 72, num_heads: 7, num_kv_heads: 1, ..spec(Family::Llama) };
    FAMILIES.into_iter().map(spec).chain([wide])
}

/// Returns what tells a model from the others.
fn name(spec: &ModelSpec) -> String {
    format!("{:?} with heads of {}", spec.family, spec.head_dim)
}

/// Returns every choice this processor can run.
fn choices() -> Vec<KernelChoice> {
    use KernelChoice::*;
    let runs = |choice: &KernelChoice| {
        let selected = Kernels::select(*choice);
        println!("{choice:?}: {}", selected.map_or("not on this processor", Kernels::name));
        selected.is_some()
    };
    [Portable, Avx2, Avx512].into_iter().filter(runs).collect()
}

fn cpu(spec: &ModelSpec, weights: &Weights, threads: usize, kernels: KernelChoice) -> Cpu {
    let options = CpuOptions { threads, kernels, deadline: Duration::from_millis(20), dtype: None };
    let mut cpu = Cpu::new(spec.clone(), weights, options).unwrap();
    cpu.allocate_kv(256, BLOCK_SIZE).unwrap();
    cpu
}

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 37 + seed * 11 + i * i * 3) % 101) as u32).collect()
}

/// Returns a block table that shares nothing with those of other numbers, in an order that is not ascending.
fn blocks(number: u32, positions: usize) -> Vec<BlockId> {
    let count = positions.div_ceil(BLOCK_SIZE) as u32;
    (0..count).rev().map(|block| BlockId(number * 12 + block)).collect()
}

fn step(cpu: &mut Cpu, sequences: &[(&[u32], usize, &[BlockId], LogitsWanted)]) -> Vec<f32> {
    let sequences: Vec<_> = sequences
        .iter()
        .map(|&(tokens, start, blocks, logits)| SequenceStep { tokens, start, blocks, logits })
        .collect();
    let mut logits = vec![f32::NAN; 7];
    cpu.step(&sequences, &mut logits).unwrap();
    logits
}

/// Returns the logits of all tokens, prefilled whole.
fn prefill(cpu: &mut Cpu, tokens: &[u32]) -> Vec<f32> {
    step(cpu, &[(tokens, 0, &blocks(0, tokens.len()), All)])
}

/// Returns the logits of all tokens, in chunks of the given size.
fn chunked(cpu: &mut Cpu, tokens: &[u32], size: usize) -> Vec<f32> {
    let table = blocks(1, tokens.len());
    let chunk = |(index, chunk): (usize, &[u32])| step(cpu, &[(chunk, index * size, &table, All)]);
    tokens.chunks(size).enumerate().flat_map(chunk).collect()
}

fn assert_bits(one: &[f32], other: &[f32], what: &str) {
    assert_eq!(one.len(), other.len(), "{what}");
    let differs = one.iter().zip(other).position(|(a, b)| a.to_bits() != b.to_bits());
    assert_eq!(differs, None, "{what}");
}

/// Asserts that numbers agree relative to the largest of them.
fn assert_close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0, |largest, x| x.abs().max(largest));
    let worst = got
        .iter()
        .zip(expected)
        .map(|(got, expected)| (f64::from(*got) - expected).abs() / largest)
        .fold(0.0, |worst, x| if x > worst || x.is_nan() { x } else { worst });
    assert!(worst < tolerance, "{what}: off by {worst:e}");
}

#[test]
fn every_family_agrees_with_the_reference_to_1e_5_on_every_instruction_set() {
    for spec in specs() {
        let weights = random_weights(&spec, 1);
        let tokens = tokens(29, 1);
        let expected = Reference::new(&spec, &weights).logits(&tokens).concat();
        for kernels in choices() {
            let mut cpu = cpu(&spec, &weights, 2, kernels);
            let got = prefill(&mut cpu, &tokens);
            assert_close(&got, &expected, 1e-5, &format!("{} {kernels:?}", name(&spec)));
        }
    }
}

#[test]
fn bf16_agrees_with_the_reference_to_2e_2_on_every_instruction_set() {
    for spec in specs() {
        let spec = ModelSpec { dtype: Dtype::Bf16, ..spec };
        let weights = random_weights(&spec, 1);
        let tokens = tokens(29, 1);
        let expected = Reference::new(&spec, &weights).logits(&tokens).concat();
        for kernels in choices() {
            let mut cpu = cpu(&spec, &weights, 2, kernels);
            let got = prefill(&mut cpu, &tokens);
            assert_close(&got, &expected, 2e-2, &format!("{} {kernels:?}", name(&spec)));
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_batch_the_chunks_or_the_threads() {
    for spec in specs() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let spec = ModelSpec { dtype, ..spec.clone() };
            let weights = random_weights(&spec, 2);
            for kernels in choices() {
                invariance(&spec, &weights, kernels);
            }
        }
    }
}

fn invariance(spec: &ModelSpec, weights: &Weights, kernels: KernelChoice) {
    let tokens = tokens(23, 3);
    let alone = prefill(&mut cpu(spec, weights, 1, kernels), &tokens);
    for threads in [1, 2, 4] {
        let what = |how: &str| format!("{} {kernels:?} {threads} threads: {how}", name(spec));
        let mut cpu = cpu(spec, weights, threads, kernels);
        assert_bits(&prefill(&mut cpu, &tokens), &alone, &what("whole"));
        for size in [1, 2, 3, 5, 8] {
            assert_bits(&chunked(&mut cpu, &tokens, size), &alone, &what("in chunks"));
        }
        assert_bits(&among_others(&mut cpu, &tokens), &alone, &what("in a batch of 17"));
    }
}

/// Returns the logits of all tokens, decoded one by one amid 16 others: some decoding, some in the middle of a prompt.
fn among_others(cpu: &mut Cpu, sequence: &[u32]) -> Vec<f32> {
    let vocab = cpu.spec().vocab_size;
    let others: Vec<Vec<u32>> = (0..16).map(|seed| tokens(48, 50 + seed)).collect();
    let tables: Vec<_> = (0..16).map(|number| blocks(number as u32, 48)).collect();
    let mut all = Vec::new();
    for t in 0..sequence.len() {
        let mut batch = Vec::new();
        for (number, other) in others.iter().enumerate() {
            let size = 1 + number % 2;
            let wanted = [LogitsWanted::None, Last, All][(number + t) % 3];
            batch.push((&other[t * size..(t + 1) * size], t * size, &*tables[number], wanted));
        }
        let ours = 5;
        let rows_before: usize = batch[..ours]
            .iter()
            .map(|part| match part.3 {
                LogitsWanted::None => 0,
                Last => 1,
                All => part.0.len(),
            })
            .sum();
        let table = blocks(20, sequence.len());
        batch.insert(ours, (&sequence[t..t + 1], t, &table, Last));
        assert_eq!(batch.len(), 17);
        let logits = step(cpu, &batch);
        all.extend_from_slice(&logits[rows_before * vocab..][..vocab]);
    }
    all
}

#[test]
fn a_copied_block_continues_like_the_original() {
    let spec = spec(Family::Qwen2);
    let weights = random_weights(&spec, 4);
    let mut cpu = cpu(&spec, &weights, 2, KernelChoice::Auto);
    let tokens = tokens(7, 1);
    let table = [BlockId(3), BlockId(1)];
    step(&mut cpu, &[(&tokens[..6], 0, &table, LogitsWanted::None)]);
    cpu.copy_block(BlockId(1), BlockId(9));
    let original = step(&mut cpu, &[(&tokens[6..], 6, &table, Last)]);
    let copy = step(&mut cpu, &[(&tokens[6..], 6, &[BlockId(3), BlockId(9)], Last)]);
    assert_bits(&original, &copy, "the copy");
}

#[test]
fn the_blocks_of_a_shared_prompt_are_read_by_all_its_samples() {
    let spec = spec(Family::Llama);
    let weights = random_weights(&spec, 4);
    let mut cpu = cpu(&spec, &weights, 2, KernelChoice::Auto);
    let tokens = tokens(9, 1);
    let alone = prefill(&mut cpu, &tokens);
    let shared = [BlockId(30), BlockId(31)];
    step(&mut cpu, &[(&tokens[..8], 0, &shared, LogitsWanted::None)]);
    let (one, two) = ([shared[0], shared[1], BlockId(40)], [shared[0], shared[1], BlockId(41)]);
    let both = step(&mut cpu, &[(&tokens[8..], 8, &one, Last), (&tokens[8..], 8, &two, Last)]);
    let last = &alone[8 * 101..];
    assert_bits(&both, &[last, last].concat(), "both samples");
}

#[test]
fn an_unknown_token_id_is_refused_by_name() {
    let spec = spec(Family::Llama);
    let mut cpu = cpu(&spec, &random_weights(&spec, 1), 1, KernelChoice::Auto);
    let (tokens, blocks) = ([101], [BlockId(0)]);
    let step = SequenceStep { tokens: &tokens, start: 0, blocks: &blocks, logits: Last };
    let error = cpu.step(&[step], &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "prompt must be token ids below 101, got 101");
}

#[test]
fn a_score_head_is_refused_by_name() {
    let spec = spec(Family::Llama).with_head(Head::Score);
    let error = Cpu::new(spec.clone(), &random_weights(&spec, 1), CpuOptions::default());
    assert!(error.unwrap_err().to_string().contains("score head"));
}
