//! What this machine can do at most: arithmetic from registers, and reading from memory.

use std::{hint::black_box, time::Instant};

use bytemuck::Zeroable;
use half::bf16;

use crate::{
    ffi::{allocator::in_huge_pages, team::Team},
    simd::{Element, Kernels, Op, Product, Set, Simd, chunks},
};

/// Numbers (f32) that are read: far more than any cache holds.
const NUMBERS: usize = 64 << 20;
/// How far ahead memory is asked for, in numbers, in one of the two ways to read.
const AHEAD: usize = 2048;
/// How often each thing is measured; the best counts.
const REPEATS: usize = 5;
/// Steps of a multiplication's loop, some milliseconds.
const ROUNDS: usize = 1_000_000;

/// Limits of a machine's processor and memory, on some threads at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Bytes read from memory in a second.
    pub read_bytes_per_s: f64,
    /// Bytes copied from one place in memory to another in a second.
    pub copy_bytes_per_s: f64,
    /// Multiplications and additions of f32 numbers in a second.
    pub f32_flops: f64,
    /// The same for bf16 numbers, summed in f32.
    pub bf16_flops: f64,
}

impl Kernels {
    /// Measures: takes some three seconds and 512 MiB.
    pub(crate) fn roofline(self, team: &mut Team) -> Roofline {
        let numbers = vec![1.0f32; NUMBERS];
        in_huge_pages(&numbers);
        let bytes = size_of_val(&*numbers) as f64;
        let threads = team.threads();
        let parts: Vec<&[f32]> = numbers.chunks(NUMBERS.div_ceil(threads)).collect();
        let mut read = |ahead| {
            let task = |_: usize, index: usize| {
                black_box(self.run(Read { numbers: parts[index], ahead }));
            };
            best(|| team.run(parts.len(), &task))
        };
        let seconds = read(0).min(read(AHEAD));
        let mut room = vec![0.0f32; NUMBERS];
        in_huge_pages(&room);
        let copied = copy(&numbers, &mut room, team);
        Roofline {
            read_bytes_per_s: bytes / seconds,
            copy_bytes_per_s: bytes / copied,
            f32_flops: self.peak::<f32>(team),
            bf16_flops: self.peak::<bf16>(team),
        }
    }

    fn peak<E: Element>(self, team: &mut Team) -> f64 {
        let threads = team.threads();
        let one = || self.run(Multiply::<E> { rounds: ROUNDS, one: E::of(1.0) });
        let flops = one() * threads as f64;
        let task = |_: usize, _: usize| {
            black_box(one());
        };
        flops / best(|| team.run(threads, &task))
    }
}

/// Returns the seconds that a copy takes as the system's library makes it.
fn copy(from: &[f32], to: &mut [f32], team: &mut Team) -> f64 {
    let part = from.len().div_ceil(team.threads());
    best(|| {
        team.pieces(to, part, |_, index, to| {
            let start = index * part;
            to.copy_from_slice(&from[start..start + to.len()]);
        });
    })
}

fn best(mut task: impl FnMut()) -> f64 {
    let mut once = || {
        let start = Instant::now();
        task();
        start.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(|_| once()).fold(f64::INFINITY, f64::min)
}

/// Multiplies and adds in registers, and returns how many operations those were.
struct Multiply<E> {
    rounds: usize,
    one: E,
}

impl<E: Element> Op for Multiply<E> {
    type Output = f64;

    #[inline(always)]
    fn run<K: Set>(self, set: K) -> f64 {
        let product = E::product(set);
        if K::Simd::MANY_REGISTERS {
            multiply::<_, 24>(product, self.rounds, self.one)
        } else {
            multiply::<_, 12>(product, self.rounds, self.one)
        }
    }
}

/// Keeps `N` sums going, more than an addition takes cycles.
#[inline(always)]
fn multiply<P: Product<Number: Element>, const N: usize>(
    product: P,
    rounds: usize,
    one: P::Number,
) -> f64 {
    let simd = product.simd();
    let mut chunk = P::Chunk::zeroed();
    bytemuck::cast_slice_mut(std::slice::from_mut(&mut chunk)).fill(one);
    let x = product.load(black_box(&chunk));
    let mut sums = [simd.splat(0.0); N];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = product.mul_add(x, x, *sum);
        }
    }
    black_box(simd.sums(sums));
    let per_step = 2 * size_of::<P::Chunk>() / size_of::<P::Number>();
    (rounds * N * per_step) as f64
}

/// Reads and adds up.
struct Read<'a> {
    numbers: &'a [f32],
    /// How far ahead to ask for memory; 0 leaves it to the processor.
    ahead: usize,
}

impl Op for Read<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<K: Set>(self, set: K) -> f32 {
        let simd = set.simd();
        let mut sums = [simd.splat(0.0); 8];
        for numbers in self.numbers.chunks_exact(8 * 16) {
            if self.ahead > 0 {
                for line in 0..8 {
                    simd.prefetch(numbers.as_ptr().wrapping_add(self.ahead + 16 * line).cast());
                }
            }
            for (index, chunk) in
                chunks::<f32, <K::Simd as Simd>::Chunk>(numbers).iter().enumerate()
            {
                sums[index % 8] = simd.add(sums[index % 8], simd.load(chunk));
            }
        }
        simd.sums(sums).iter().sum()
    }
}
