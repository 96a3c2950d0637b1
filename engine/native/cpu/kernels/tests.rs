//! Every instruction set against plain sums in f64, on shapes that no register divides.

use std::sync::Mutex;

use half::bf16;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    engine::native::BlockId,
    ffi::team::Team,
    simd::{
        Element, KernelChoice, Kernels, Narrow, Op, Set, Simd, chunks, chunks_mut, padded, unpad,
    },
};

/// Returns every set this processor has.
fn sets() -> Vec<Kernels> {
    let choices = [KernelChoice::Portable, KernelChoice::Avx2, KernelChoice::Avx512];
    let sets: Vec<_> = choices.into_iter().filter_map(Kernels::select).collect();
    println!("this processor runs {:?}", sets.iter().map(|set| set.name()).collect::<Vec<_>>());
    sets
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // Numbers that bf16 holds exactly, so that one expectation serves both formats.
    (0..count).map(|_| bf16::from_f32(random.random::<f32>() * 2.0 - 1.0).to_f32()).collect()
}

/// Returns `x Wᵀ + bias` and, per output, the sum of magnitudes that errors are relative to.
fn expected(x: &[f32], w: &[f32], bias: &[f32], depth: usize) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for x in x.chunks_exact(depth) {
        for (w, bias) in w.chunks_exact(depth).zip(bias) {
            let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let magnitude: f64 = products.clone().map(f64::abs).sum();
            out.push((products.sum::<f64>() + f64::from(*bias), magnitude + 1.0));
        }
    }
    out
}

#[test]
fn linear_layers_agree_with_f64_to_1e_6_of_their_magnitude_on_awkward_shapes() {
    let mut team = Team::new(2).unwrap();
    let small =
        (1..10).flat_map(|rows| [(rows, 1, 5), (rows, 31, 27), (rows, 32, 48), (rows, 75, 101)]);
    // Activations that no cache holds at once: rows in blocks of 6 in f32 and of 12 in bf16, and 2 left over.
    for (rows, depth, outputs) in small.chain([(14, 8_192, 19)]) {
        let (x, w) = (random(rows * depth, 1), random(outputs * depth, 2));
        let bias = random(outputs, 3);
        let expected = expected(&x, &w, &bias, depth);
        let shape = (rows, depth, outputs);
        for set in sets() {
            linear::<f32>(set, &mut team, shape, [&x, &w, &bias], &expected);
            linear::<bf16>(set, &mut team, shape, [&x, &w, &bias], &expected);
        }
    }
}

/// Adds a linear layer to 0.5 and compares.
fn linear<E: Element>(
    set: Kernels,
    team: &mut Team,
    (rows, depth, outputs): (usize, usize, usize),
    numbers: [&[f32]; 3],
    expected: &[(f64, f64)],
) {
    let [x, weight, bias] =
        numbers.map(|numbers| numbers.iter().map(|x| E::of(*x)).collect::<Vec<_>>());
    let layers = [Linear { weight: &weight, bias: Some(&bias) }];
    let mut out = vec![0.5; rows * outputs];
    let linears = Linears { x: &x, depth, layers: &layers, add: true };
    set.linears(team, &linears, &mut out);
    for (out, (sum, magnitude)) in out.iter().zip(expected) {
        let off = (f64::from(*out) - 0.5 - sum).abs() / magnitude;
        assert!(off < 1e-6, "{} {rows}x{depth}x{outputs}: {off:e}", set.name());
    }
}

struct Sums<'a>(&'a [f32; 9 * 16]);

impl Op for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let simd = set.simd();
        let chunks = chunks::<f32, <K::Simd as Simd>::Chunk>(self.0);
        let vectors: [_; 9] = std::array::from_fn(|i| simd.load(&chunks[i]));
        let one_by_one = vectors.map(|vector| simd.sum(vector));
        assert_eq!(simd.sums(vectors).map(f32::to_bits), one_by_one.map(f32::to_bits));
    }
}

#[test]
fn sums_of_many_registers_have_the_bits_of_each_ones_sum() {
    let numbers: [f32; 9 * 16] = random(9 * 16, 4).try_into().unwrap();
    let numbers = numbers.map(|x| x / 3.0);
    sets().into_iter().for_each(|set| set.run(Sums(&numbers)));
}

struct Exp<'a>(&'a mut [f32]);

impl Op for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<K: Set>(self, set: K) {
        let simd = set.simd();
        let rest = padded::<f32, <K::Simd as Simd>::Chunk>(self.0);
        for chunk in chunks_mut::<f32, <K::Simd as Simd>::Chunk>(self.0) {
            simd.store(crate::simd::exp(simd, simd.load(chunk)), chunk);
        }
        if let Some(mut rest) = rest {
            simd.store(crate::simd::exp(simd, simd.load(&rest)), &mut rest);
            unpad(&rest, self.0);
        }
    }
}

#[test]
fn exponentials_agree_with_f64_to_3e_7_and_pass_on_what_is_not_a_number() {
    let inputs: Vec<f32> = (-8_700..8_800).map(|i| i as f32 / 100.0).collect();
    for set in sets() {
        let mut outputs = inputs.clone();
        set.run(Exp(&mut outputs));
        for (x, y) in inputs.iter().zip(&outputs) {
            let off = (f64::from(*y) / f64::from(*x).exp() - 1.0).abs();
            assert!(off < 3e-7, "{}: e^{x} is off by {off:e}", set.name());
        }
        let mut odd = [f32::NAN, 0.0, f32::NEG_INFINITY];
        set.run(Exp(&mut odd));
        assert!(odd[0].is_nan() && odd[1] == 1.0 && odd[2] < 1e-37, "{}: {odd:?}", set.name());
    }
}

#[test]
fn rounding_to_bf16_is_that_of_the_half_crate() {
    let mut numbers: Vec<f32> = (0..60_000u32).map(|i| f32::from_bits(i * 71_567)).collect();
    numbers.retain(|x| !x.is_nan());
    for x in numbers {
        assert_eq!(<bf16 as Element>::of(x), bf16::from_f32(x), "{x:e}");
        assert_eq!(bf16::from_f32(x).wide(), bf16::from_f32(x).to_f32(), "{x:e}");
    }
}

#[test]
fn the_end_after_the_last_whole_chunk_is_padded_with_zeros_and_put_back() {
    let mut numbers = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    assert_eq!(chunks::<f32, [f32; 4]>(&numbers), [[1.0, 2.0, 3.0, 4.0]]);
    assert_eq!(padded::<f32, [f32; 4]>(&numbers), Some([5.0, 6.0, 0.0, 0.0]));
    assert_eq!(padded::<f32, [f32; 3]>(&numbers), None);
    unpad(&[7.0f32, 8.0, 9.0, 9.0], &mut numbers);
    assert_eq!(numbers, [1.0, 2.0, 3.0, 4.0, 7.0, 8.0]);
}

/// What a sequence's tokens hold, `[token, kv_heads (· group), head_dim]` each.
struct Heads {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// The most that a bf16 number is off, relative to the number.
const BF16: f64 = 1.0 / 256.0;

#[test]
fn attention_agrees_with_f64_whatever_fills_the_registers() {
    let tokens = 150;
    // Blocks of one register, of several, of less than one, and of some and a rest; dimensions likewise.
    for (block_size, head_dim) in [(16, 64), (32, 16), (5, 6), (24, 80), (150, 40)] {
        for (group, window) in [(1, usize::MAX), (2, 37), (3, usize::MAX), (6, 90)] {
            let shape = AttentionShape { group, kv_heads: 2, head_dim, block_size, window };
            let size = tokens * shape.kv_heads * head_dim;
            let [queries, keys, values] = [(1, group), (2, 1), (3, 1)]
                .map(|(seed, heads)| random(size * heads, seed).iter().map(|x| 2.0 * x).collect());
            let heads = Heads { queries, keys, values };
            let expected = attended(shape, &heads, tokens);
            for set in sets() {
                attention::<f32>(set, shape, &heads, (&expected, 1e-5));
                attention::<bf16>(set, shape, &heads, (&expected, 1e-5 + 2.0 * BF16));
            }
        }
    }
}

/// Attention as its definition has it.
fn attended(shape: AttentionShape, heads: &Heads, tokens: usize) -> Vec<f64> {
    let AttentionShape { group, kv_heads, head_dim, window, .. } = shape;
    let of = |numbers: &[f32], row: usize| -> Vec<f64> {
        numbers[row * head_dim..][..head_dim].iter().map(|x| f64::from(*x)).collect()
    };
    let mut out = Vec::new();
    for (token, head) in (0..tokens).flat_map(|t| (0..kv_heads * group).map(move |h| (t, h))) {
        let query = of(&heads.queries, token * kv_heads * group + head);
        let seen = (token + 1).saturating_sub(window)..token + 1;
        let row = |position| position * kv_heads + head / group;
        let weights = seen.clone().map(|position| {
            let key = of(&heads.keys, row(position));
            let dot: f64 = query.iter().zip(key).map(|(q, k)| q * k).sum();
            (dot / (head_dim as f64).sqrt()).exp()
        });
        let weights: Vec<f64> = weights.collect();
        let mut sums = vec![0.0; head_dim];
        for (position, weight) in seen.zip(&weights) {
            let values = of(&heads.values, row(position));
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
        }
        let total: f64 = weights.iter().sum();
        out.extend(sums.into_iter().map(|sum| sum / total));
    }
    out
}

/// Puts keys and values into blocks, the last first, and compares.
fn attention<E: Element>(
    set: Kernels,
    shape: AttentionShape,
    heads: &Heads,
    (expected, tolerance): (&[f64], f64),
) {
    let AttentionShape { kv_heads, head_dim, block_size, .. } = shape;
    let width = kv_heads * head_dim;
    let tokens = heads.keys.len() / width;
    let blocks: Vec<BlockId> = (0..tokens.div_ceil(block_size) as u32).rev().map(BlockId).collect();
    // What nobody wrote must not matter.
    let mut keys = vec![E::of(f32::NAN); blocks.len() * block_size * width];
    let mut values = keys.clone();
    for (token, head) in (0..tokens).flat_map(|t| (0..kv_heads).map(move |h| (t, h))) {
        let block = blocks[token / block_size].0 as usize;
        let start = (block * kv_heads + head) * block_size * head_dim;
        let (position, row) = (token % block_size, (token * kv_heads + head) * head_dim);
        let key = &heads.keys[row..][..head_dim];
        let block = &mut keys[start..][..block_size * head_dim];
        set.run(StoreKey { key, position, block_size, block });
        let to = &mut values[start + position * head_dim..][..head_dim];
        set.run(Narrow { from: &heads.values[row..][..head_dim], to });
    }
    let mut team = Team::new(2).unwrap();
    let scratch: Vec<Mutex<Scratch<E>>> = (0..2).map(|_| Mutex::default()).collect();
    let cached = Cached { keys: &keys, values: &values };
    let attention = Attention { shape, cached, queries: &heads.queries, tokens };
    let mut out = vec![E::zeroed(); heads.queries.len()];
    set.attend(&mut team, attention, |token| (&blocks, token), &scratch, &mut out);
    for (i, (out, expected)) in out.iter().zip(expected).enumerate() {
        let off = (f64::from(out.wide()) - expected).abs();
        assert!(off < tolerance, "{} {shape:?} number {i}: {out:?}, not {expected}", set.name());
    }
}
