//! Numbers from one format into another, refusing those that are not finite.

use half::{bf16, f16};

use crate::rollout::Dtype;

/// Converts numbers, or only looks at them where there is no target; source and target are equally long.
///
/// # Errors
/// The index of the first number that is not finite after the conversion.
pub(super) fn convert(
    from: &[u8],
    dtype: Dtype,
    to: Option<(&mut [u8], Dtype)>,
) -> Result<(), usize> {
    match (dtype, to) {
        (Dtype::F32, None) => check(from, |x: [u8; 4]| f32::from_le_bytes(x).is_finite()),
        (Dtype::Bf16, None) => check(from, |x: [u8; 2]| finite(bf16::from_le_bytes(x))),
        (Dtype::F16, None) => check(from, |x: [u8; 2]| f16::from_le_bytes(x).is_finite()),
        (dtype, Some((to, target))) => match (dtype, target) {
            (Dtype::F32, Dtype::F32) | (Dtype::Bf16, Dtype::Bf16) | (Dtype::F16, Dtype::F16) => {
                to.copy_from_slice(from);
                convert(to, dtype, None)
            }
            (Dtype::F32, _) => narrow(from, to, target, f32::from_le_bytes),
            (Dtype::Bf16, _) => narrow(from, to, target, |x| bf16::from_le_bytes(x).to_f32()),
            (Dtype::F16, _) => narrow(from, to, target, |x| f16::from_le_bytes(x).to_f32()),
        },
    }
}

/// Writes f32 numbers, as `read` makes them of bytes, in the target's format.
fn narrow<const N: usize>(
    from: &[u8],
    to: &mut [u8],
    target: Dtype,
    read: impl Fn([u8; N]) -> f32,
) -> Result<(), usize> {
    match target {
        Dtype::F32 => each(from, to, |x| read(x).to_le_bytes()),
        Dtype::Bf16 => each(from, to, |x| bf16::from_f32(read(x)).to_le_bytes()),
        Dtype::F16 => each(from, to, |x| f16::from_f32(read(x)).to_le_bytes()),
    }
    convert(to, target, None)
}

fn each<const N: usize, const M: usize>(
    from: &[u8],
    to: &mut [u8],
    f: impl Fn([u8; N]) -> [u8; M],
) {
    let (from, to) = (from.as_chunks::<N>().0, to.as_chunks_mut::<M>().0);
    for (from, to) in from.iter().zip(to) {
        *to = f(*from);
    }
}

fn check<const N: usize>(from: &[u8], good: impl Fn([u8; N]) -> bool) -> Result<(), usize> {
    let numbers = from.as_chunks::<N>().0;
    // Without an early exit within the block, so that the compiler can use vectors.
    const BLOCK: usize = 1024;
    for (index, block) in numbers.chunks(BLOCK).enumerate() {
        if !block.iter().fold(true, |all, x| all & good(*x)) {
            let bad = block.iter().position(|x| !good(*x)).unwrap_or_default();
            return Err(index * BLOCK + bad);
        }
    }
    Ok(())
}

/// As `is_finite`, without its branches.
fn finite(x: bf16) -> bool {
    x.to_bits() & 0x7f80 != 0x7f80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(numbers: &[f32], dtype: Dtype) -> Vec<u8> {
        let mut bytes = vec![0; numbers.len() * dtype.size()];
        let from: &[u8] = bytemuck::cast_slice(numbers);
        convert(from, Dtype::F32, Some((&mut bytes, dtype))).unwrap();
        bytes
    }

    #[test]
    fn every_format_becomes_every_other() {
        let numbers = [0.0, -1.5, 3.0, 0.25, -65_504.0];
        for from in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            // bf16 cannot hold the largest f16.
            let numbers = if from == Dtype::Bf16 { &numbers[..4] } else { &numbers };
            let source = bytes(numbers, from);
            for to in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let mut target = vec![0; numbers.len() * to.size()];
                convert(&source, from, Some((&mut target, to))).unwrap();
                assert_eq!(target, bytes(numbers, to), "{from} to {to}");
            }
        }
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_named() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut numbers = vec![1.0f32; 3000];
            numbers[2047] = bad;
            numbers[2999] = bad;
            let from = bytemuck::cast_slice(&numbers);
            assert_eq!(convert(from, Dtype::F32, None), Err(2047));
            let mut to = vec![0; 6000];
            for dtype in [Dtype::Bf16, Dtype::F16] {
                assert_eq!(convert(from, Dtype::F32, Some((&mut to, dtype))), Err(2047));
                assert_eq!(convert(&to, dtype, None), Err(2047));
            }
        }
    }
}
