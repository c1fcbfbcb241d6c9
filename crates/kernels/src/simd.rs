//! The vector abstraction: loops over groups of [`LANES`] lanes, compiled once per instruction set and chosen at run time.
//!
//! A kernel's body is a plain function marked `#[inline(always)]`; [`dispatch`] calls it in a context where the compiler
//! may use everything the processor has (AVX-512, AVX2 with FMA, NEON, WebAssembly SIMD), so that there is one body, not
//! one per instruction set. Sums run over [`LANES`] partial sums in a fixed order and multiply-adds are fused on every
//! path: the results do not depend on the instruction set chosen.

use crate::fused::mul_add;

/// Partial sums of a reduction: one AVX-512 register, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;

/// Runs `body` compiled for the best instruction set of this processor.
///
/// Loops in a body are `for` loops: what is given to `for_each` and the like may be compiled apart, without the instruction
/// set, and a fused multiply-add is then a call.
#[inline]
pub(crate) fn dispatch<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}

/// Adds the partial sums pairwise.
#[inline(always)]
pub(crate) fn reduce(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Inner product of two equally long slices, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tails = a.remainder().iter().zip(b.remainder());
    for (a, b) in a.zip(b) {
        for i in 0..LANES {
            lanes[i] = mul_add(a[i], b[i], lanes[i]);
        }
    }
    for (lane, (a, b)) in lanes.iter_mut().zip(tails) {
        *lane = mul_add(*a, *b, *lane);
    }
    reduce(lanes)
}

/// Sum of a slice, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(tail) {
        *lane += x;
    }
    reduce(lanes)
}

/// `sum of a[i] b[i] c[i]` of three equally long slices, in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn dot3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b, c) = (a.chunks_exact(LANES), b.chunks_exact(LANES), c.chunks_exact(LANES));
    let tails = a.remainder().iter().zip(b.remainder()).zip(c.remainder());
    for ((a, b), c) in a.zip(b).zip(c) {
        for i in 0..LANES {
            lanes[i] = mul_add(a[i], b[i] * c[i], lanes[i]);
        }
    }
    for (lane, ((a, b), c)) in lanes.iter_mut().zip(tails) {
        *lane = mul_add(*a, b * c, *lane);
    }
    reduce(lanes)
}

/// The largest element; negative infinity if there is none. NaN is passed over.
#[inline(always)]
pub(crate) fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max })
}

/// Replaces each `x` by `e^(x - shift)` and sums up the results in [`LANES`] partial sums.
#[inline(always)]
pub(crate) fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let mut chunks = x.chunks_exact_mut(LANES);
    for x in &mut chunks {
        for i in 0..LANES {
            x[i] = exp(x[i] - shift);
            lanes[i] += x[i];
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *x = exp(*x - shift);
        *lane += *x;
    }
    reduce(lanes)
}

/// `e^x` to about one unit in the last place, without branches, so that loops over it vectorise. Below -87.3 it stays at
/// the smallest normal number, above 88.7 at the largest finite one; NaN gives NaN.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the rounded integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.7 { 88.7 } else { x };
    let shifted = mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add(n, -LN2_LOW, mul_add(n, -LN2_HIGH, x));
    // Coefficients of Cephes' expf on [-ln2/2, ln2/2].
    let mut p = 1.987_569_1e-4;
    p = mul_add(r, p, 1.398_199_9e-3);
    p = mul_add(r, p, 8.333_452e-3);
    p = mul_add(r, p, 4.166_579_6e-2);
    p = mul_add(r, p, 1.666_666_5e-1);
    p = mul_add(r, p, 0.5);
    let mantissa = mul_add(r * r, p, r) + 1.0;
    // 2^n in two factors: n may be 128, whose power alone would overflow.
    let half = f32::from_bits((shifted.to_bits() << 22 & 0xff80_0000).wrapping_add(1.0f32.to_bits()));
    let rest =
        f32::from_bits((shifted.to_bits() << 23).wrapping_sub(half.to_bits()).wrapping_add(2 * 1.0f32.to_bits()));
    mantissa * half * rest
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut x = -87.2;
        while x < 88.7 {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expected).abs() / expected;
            assert!(error < 1.6e-7, "exp({x}) is off by {error:e}");
            x += 0.003;
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(1000.0).is_finite() && exp(-1000.0) < 2e-38);
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_plain_code() {
        for n in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 1.3).cos()).collect();
            assert_eq!(dispatch(|| dot(&a, &b)).to_bits(), dot(&a, &b).to_bits());
            let fast: Vec<u32> = dispatch(|| a.iter().map(|&x| exp(10.0 * x).to_bits()).collect());
            let plain: Vec<u32> = a.iter().map(|&x| exp(10.0 * x).to_bits()).collect();
            assert_eq!(fast, plain);
        }
    }
}
