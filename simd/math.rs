//! Functions of vectors.

use super::Simd;

/// Returns `e^x`, to about two units in the last place; x is first clamped to what f32 can hold.
///
/// Cody-Waite reduction by ln 2, then the polynomial of Cephes' `expf` (Moshier, 1989).
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    const POLYNOMIAL: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // The bounds come first: where x is not a number, neither is the result.
    let x = simd.max(simd.splat(-87.3), simd.min(simd.splat(88.3), x));
    let n = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-0.693_359_4), x);
    let r = simd.mul_add(n, simd.splat(2.121_944_4e-4), r);
    let mut p = simd.splat(POLYNOMIAL[0]);
    for coefficient in &POLYNOMIAL[1..] {
        p = simd.mul_add(p, r, simd.splat(*coefficient));
    }
    let p = simd.mul_add(p, simd.mul(r, r), r);
    simd.scale_by_power(simd.add(p, simd.splat(1.0)), n)
}
