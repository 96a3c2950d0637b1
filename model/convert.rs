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
    let converted = filled(to, bytes.len() / from.size(), lease, |out| {
        convert_into(bytes, from, out, to);
        Ok::<(), std::convert::Infallible>(())
    });
    match converted {
        Ok(memory) => memory,
        Err(never) => match never {},
    }
}

/// Returns memory for so many numbers, aligned to them, after `fill` has been at its zero bytes.
pub(super) fn filled<E>(
    dtype: Dtype,
    elements: usize,
    lease: &Lease,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Memory, E> {
    match dtype {
        Dtype::F32 => {
            let mut numbers = vec![0f32; elements];
            fill(bytemuck::cast_slice_mut(&mut numbers))?;
            Ok(Memory::from_vec(numbers, lease))
        }
        Dtype::F16 | Dtype::Bf16 => {
            let mut numbers = vec![0u16; elements];
            fill(bytemuck::cast_slice_mut(&mut numbers))?;
            Ok(Memory::from_vec(numbers, lease))
        }
    }
}

/// Writes the numbers in another format, rounded to nearest even. Both slices hold equally many, at any alignment.
pub(super) fn convert_into(bytes: &[u8], from: Dtype, out: &mut [u8], to: Dtype) {
    use Dtype::{Bf16, F16, F32};
    match (from, to) {
        (F32, F32) | (F16, F16) | (Bf16, Bf16) => out.copy_from_slice(bytes),
        (F32, F16) => each(bytes, out, |b| f16::from_f32(f32::from_le_bytes(b)).to_le_bytes()),
        (F32, Bf16) => each(bytes, out, |b| bf16::from_f32(f32::from_le_bytes(b)).to_le_bytes()),
        (F16, F32) => each(bytes, out, |b| f16::from_le_bytes(b).to_f32().to_le_bytes()),
        (F16, Bf16) => {
            each(bytes, out, |b| bf16::from_f32(f16::from_le_bytes(b).to_f32()).to_le_bytes())
        }
        (Bf16, F32) => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32().to_le_bytes()),
        (Bf16, F16) => {
            each(bytes, out, |b| f16::from_f32(bf16::from_le_bytes(b).to_f32()).to_le_bytes())
        }
    }
}

fn each<const FROM: usize, const TO: usize>(
    bytes: &[u8],
    out: &mut [u8],
    number: impl Fn([u8; FROM]) -> [u8; TO] + Sync,
) {
    let (from, to) = (bytes.as_chunks().0, out.as_chunks_mut().0);
    if from.len() <= CHUNK {
        // A row of a matrix that is cut along its columns: waking the pool would take longer.
        from.iter().zip(to).for_each(|(&from, to)| *to = number(from));
        return;
    }
    let pairs = from.par_iter().with_min_len(CHUNK).zip(to);
    pairs.for_each(|(&from, to)| *to = number(from));
}

/// Says whether an address fits a format's alignment.
pub(super) fn is_aligned(bytes: &[u8], dtype: Dtype) -> bool {
    bytes.as_ptr().addr().is_multiple_of(dtype.size())
}
