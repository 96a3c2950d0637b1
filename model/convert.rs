//! Numbers of one float format into another, and the search for those that are not numbers.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::{
    ffi::memory::{Lease, Memory},
    rollout::Dtype,
};

const CHUNK: usize = 1 << 16;

/// Returns the index of the first number that is NaN or infinite. `bytes` hold whole little-endian numbers.
pub(super) fn first_not_finite(bytes: &[u8], dtype: Dtype) -> Option<usize> {
    // A float is NaN or infinite exactly when all its exponent bits are set.
    match dtype {
        Dtype::F32 => first::<4>(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        Dtype::F16 => first::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        Dtype::Bf16 => first::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
    }
}

fn first<const N: usize>(bytes: &[u8], is_bad: fn([u8; N]) -> bool) -> Option<usize> {
    let scan = |(index, chunk): (usize, &[u8])| {
        let (numbers, _) = chunk.as_chunks::<N>();
        // The plain fold runs at the speed of memory; the position is looked for only where there is one.
        let any = numbers.iter().fold(false, |any, &number| any | is_bad(number));
        let place = any.then(|| numbers.iter().position(|&number| is_bad(number))).flatten()?;
        Some(index * CHUNK + place)
    };
    bytes.par_chunks(CHUNK * N).enumerate().find_map_first(scan)
}

/// Returns the numbers in another format, rounded to nearest even. Also aligns bytes that were not.
pub(super) fn convert(bytes: &[u8], from: Dtype, to: Dtype, lease: &Lease) -> Memory {
    match to {
        Dtype::F32 => Memory::from_vec(map(bytes, from, |x| x), lease),
        Dtype::F16 => Memory::from_vec(map(bytes, from, f16::from_f32), lease),
        Dtype::Bf16 => Memory::from_vec(map(bytes, from, bf16::from_f32), lease),
    }
}

fn map<T: Send>(bytes: &[u8], from: Dtype, to: impl Fn(f32) -> T + Sync) -> Vec<T> {
    match from {
        Dtype::F32 => bytes
            .as_chunks()
            .0
            .par_iter()
            .with_min_len(CHUNK)
            .map(|&b| to(f32::from_le_bytes(b)))
            .collect(),
        Dtype::F16 => {
            let number = |&b: &[u8; 2]| to(f16::from_le_bytes(b).to_f32());
            bytes.as_chunks().0.par_iter().with_min_len(CHUNK).map(number).collect()
        }
        Dtype::Bf16 => {
            let number = |&b: &[u8; 2]| to(bf16::from_le_bytes(b).to_f32());
            bytes.as_chunks().0.par_iter().with_min_len(CHUNK).map(number).collect()
        }
    }
}

/// Says whether an address fits a format's alignment.
pub(super) fn is_aligned(bytes: &[u8], dtype: Dtype) -> bool {
    bytes.as_ptr().addr().is_multiple_of(dtype.size())
}
