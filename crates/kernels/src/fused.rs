//! `x y + z`, rounded once, on every machine.
//!
//! WebAssembly has no such instruction. Its relaxed SIMD has one that most processors round once, and only such processors are
//! given a module that uses it (see [`is_exact`]). Otherwise the product, which is exact in `f64`, is added there and the sum
//! rounded to odd: what was cut off then shows in the last bit, so that rounding once more, to `f32`, gives what rounding once
//! would have (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).

#[cfg(not(target_family = "wasm"))]
#[inline(always)]
pub(crate) fn mul_add(x: f32, y: f32, z: f32) -> f32 {
    x.mul_add(y, z)
}

#[cfg(all(target_family = "wasm", target_feature = "relaxed-simd"))]
#[inline(always)]
pub(crate) fn mul_add(x: f32, y: f32, z: f32) -> f32 {
    use std::arch::wasm32::*;
    f32x4_extract_lane::<0>(f32x4_relaxed_madd(f32x4_splat(x), f32x4_splat(y), f32x4_splat(z)))
}

#[cfg(all(target_family = "wasm", not(target_feature = "relaxed-simd")))]
#[inline(always)]
pub(crate) fn mul_add(x: f32, y: f32, z: f32) -> f32 {
    in_f64(x, y, z)
}

/// The sum in `f64`.
#[cfg(any(test, all(target_family = "wasm", not(target_feature = "relaxed-simd"))))]
#[inline(always)]
fn in_f64(x: f32, y: f32, z: f32) -> f32 {
    let (product, z) = (f64::from(x) * f64::from(y), f64::from(z));
    let sum = product + z;
    // What rounding took away, exactly (Knuth); NaN, which is neither less nor greater, where there is nothing finite.
    let part = sum - product;
    let rest = (product - (sum - part)) + (z - part);
    let is_inexact = (rest < 0.0) | (rest > 0.0);
    let is_even = sum.to_bits() & 1 == 0;
    let step = ((rest.to_bits() ^ sum.to_bits()) as i64 >> 63) | 1;
    let step = if is_inexact & is_even { step } else { 0 };
    f64::from_bits(sum.to_bits().wrapping_add_signed(step)) as f32
}

/// [`mul_add`] of four lanes.
#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
#[inline(always)]
pub(crate) fn mul_add_lanes(
    x: std::arch::wasm32::v128,
    y: std::arch::wasm32::v128,
    z: std::arch::wasm32::v128,
) -> std::arch::wasm32::v128 {
    use std::arch::wasm32::*;
    #[cfg(target_feature = "relaxed-simd")]
    return f32x4_relaxed_madd(x, y, z);
    #[cfg(not(target_feature = "relaxed-simd"))]
    {
        /// [`in_f64`] of two lanes, not rounded to `f32` yet.
        #[inline(always)]
        fn two(x: v128, y: v128, z: v128) -> v128 {
            let (x, y, z) = (f64x2_promote_low_f32x4(x), f64x2_promote_low_f32x4(y), f64x2_promote_low_f32x4(z));
            let product = f64x2_mul(x, y);
            let sum = f64x2_add(product, z);
            let part = f64x2_sub(sum, product);
            let rest = f64x2_add(f64x2_sub(product, f64x2_sub(sum, part)), f64x2_sub(z, part));
            let zero = f64x2_splat(0.0);
            let is_inexact = v128_or(f64x2_lt(rest, zero), f64x2_gt(rest, zero));
            let one = i64x2_splat(1);
            let is_even = i64x2_eq(v128_and(sum, one), zero);
            let step = v128_or(i64x2_shr(v128_xor(rest, sum), 63), one);
            i64x2_add(sum, v128_and(step, v128_and(is_inexact, is_even)))
        }
        let upper = |x| i64x2_shuffle::<1, 1>(x, x);
        let (low, high) = (two(x, y, z), two(upper(x), upper(y), upper(z)));
        i64x2_shuffle::<0, 2>(f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high))
    }
}

/// Whether this machine rounds once: `false` only in WebAssembly with relaxed SIMD on a processor without fused instructions.
pub fn is_exact() -> bool {
    let x = std::hint::black_box(1.0 + f32::EPSILON);
    // The square is 1 + 2 EPSILON + EPSILON^2, of which the last term is lost if it is rounded before the sum.
    mul_add(x, x, -1.0 - 2.0 * f32::EPSILON) == f32::EPSILON * f32::EPSILON
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_machine_rounds_once() {
        assert!(is_exact());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100_000))]
        #[test]
        fn the_sum_in_f64_is_rounded_once(x: u32, y: u32, z: u32, near: bool, shift in 0u32..48) {
            let [x, y, mut z] = [x, y, z].map(f32::from_bits);
            if near {
                // Where the sum is about as large as what is added, roundings matter.
                z = -(x * y) * (1.0 + z.to_bits() as f32 / u32::MAX as f32 / (1u64 << shift) as f32);
            }
            let (found, expected) = (in_f64(x, y, z), x.mul_add(y, z));
            prop_assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{x:e} * {y:e} + {z:e} is {expected:e}, not {found:e}"
            );
        }
    }

    #[test]
    fn halfway_cases_are_rounded_by_what_is_cut_off() {
        let half_unit = f32::EPSILON / 2.0;
        for (x, y, z) in [
            (half_unit, 1.0 + f32::EPSILON, 1.0),
            (half_unit, 1.0 - half_unit, 1.0),
            (half_unit, 1.0, 1.0 + f32::EPSILON),
            (f32::MIN_POSITIVE, f32::EPSILON / 2.0, f32::from_bits(1)),
            (-f32::MIN_POSITIVE, 0.5, f32::MIN_POSITIVE),
            (f32::MAX, 2.0, f32::NEG_INFINITY),
            (f32::MAX, 1.0, f32::MAX),
            (0.0, -1.0, 0.0),
            (1e-30, 1e-30, -1.0),
        ] {
            assert_eq!(in_f64(x, y, z).to_bits(), x.mul_add(y, z).to_bits(), "{x:e} * {y:e} + {z:e}");
        }
    }
}
