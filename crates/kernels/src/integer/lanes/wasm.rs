//! WebAssembly's SIMD, with or without its relaxed instructions: four registers are a vector.

use std::arch::wasm32::*;

use super::{IntegerLanes, Tile};
use crate::fused::mul_add_lanes;
use crate::lanes::widen_halves;

pub(super) struct Wasm;

/// Registers of sixteen sums. Without the relaxed product of bytes the instruction at hand adds pairs of products in 16 bits:
/// the two sums of a lane are kept apart, side by side, until they are wanted.
#[cfg(target_feature = "relaxed-simd")]
const SUMS: usize = 4;
#[cfg(not(target_feature = "relaxed-simd"))]
const SUMS: usize = 8;

#[allow(unused_unsafe, reason = "not all of them have pointers")]
impl IntegerLanes for Wasm {
    type Floats = [v128; 4];
    type Integers = [v128; SUMS];
    type Bytes = [v128; 4];
    const TILE: Tile = Tile::Narrow;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn prefetch(_address: *const u8) {}

    #[inline(always)]
    unsafe fn splat(x: f32) -> [v128; 4] {
        [f32x4_splat(x); 4]
    }

    #[inline(always)]
    unsafe fn splat_integer(x: i32) -> [v128; SUMS] {
        [if SUMS == 4 { i32x4_splat(x) } else { i64x2_splat(i64::from(x as u32)) }; SUMS]
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> [v128; 4] {
        // SAFETY: four bytes.
        [unsafe { v128_load32_splat(from.cast()) }; 4]
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [v128; 4] {
        quarters!(|I| v128_load(from.add(16 * I).cast()))
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, x: [v128; 4]) {
        quarters!(|I| v128_store(to.add(16 * I).cast(), x[I]));
    }

    #[inline(always)]
    unsafe fn load_numbers(from: *const u8) -> [v128; 4] {
        // SAFETY: as the caller says.
        unsafe { Self::load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [v128; 4] {
        quarters!(|I| v128_load(from.add(4 * I).cast()))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [v128; 4]) {
        quarters!(|I| v128_store(to.add(4 * I).cast(), x[I]));
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> [v128; 4] {
        quarters!(|I| widen_halves(u32x4_load_extend_u16x4(from.add(8 * I).cast())))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> [v128; 4] {
        quarters!(|I| i32x4_shl(u32x4_load_extend_u16x4(from.add(8 * I).cast()), 16))
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [v128; 4] {
        quarters!(|I| {
            let bytes = v128_load32_zero(from.add(4 * I).cast());
            f32x4_convert_i32x4(u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(bytes)))
        })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> [v128; 4] {
        quarters!(|I| {
            let bytes = v128_load32_zero(from.add(4 * I).cast());
            f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(bytes)))
        })
    }

    #[inline(always)]
    unsafe fn and(x: [v128; 4], mask: u8) -> [v128; 4] {
        quarters!(|I| v128_and(x[I], u8x16_splat(mask)))
    }

    #[inline(always)]
    unsafe fn or(x: [v128; 4], y: [v128; 4]) -> [v128; 4] {
        quarters!(|I| v128_or(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn right1(x: [v128; 4]) -> [v128; 4] {
        quarters!(|I| u16x8_shr(x[I], 1))
    }

    #[inline(always)]
    unsafe fn right2(x: [v128; 4]) -> [v128; 4] {
        quarters!(|I| u16x8_shr(x[I], 2))
    }

    #[inline(always)]
    unsafe fn right4(x: [v128; 4]) -> [v128; 4] {
        quarters!(|I| u16x8_shr(x[I], 4))
    }

    #[inline(always)]
    unsafe fn left4(x: [v128; 4]) -> [v128; 4] {
        quarters!(|I| i16x8_shl(x[I], 4))
    }

    /// Numbers below 128 are multiplied at once; of others the highest bit is, apart.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: [v128; 4], w: [v128; 4], a: [v128; 4]) -> [v128; 4] {
        if SMALL {
            return quarters!(|I| i32x4_relaxed_dot_i8x16_i7x16_add(a[I], w[I], sum[I]));
        }
        quarters!(|I| {
            let sum = i32x4_relaxed_dot_i8x16_i7x16_add(a[I], v128_and(w[I], u8x16_splat(127)), sum[I]);
            // 128 is no number of 7 bits: 64, twice.
            let high = v128_and(a[I], i8x16_shr(w[I], 7));
            let halves = i32x4_relaxed_dot_i8x16_i7x16_add(high, u8x16_splat(64), i32x4_splat(0));
            i32x4_add(sum, i32x4_shl(halves, 1))
        })
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: [v128; 8], w: [v128; 4], a: [v128; 4]) -> [v128; 8] {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sum;
        let a = i16x8_extend_low_i8x16(a[0]);
        let low = |sum, w| i32x4_add(sum, i32x4_dot_i16x8(u16x8_extend_low_u8x16(w), a));
        let high = |sum, w| i32x4_add(sum, i32x4_dot_i16x8(u16x8_extend_high_u8x16(w), a));
        let [w0, w1, w2, w3] = w;
        [low(s0, w0), high(s1, w0), low(s2, w1), high(s3, w1), low(s4, w2), high(s5, w2), low(s6, w3), high(s7, w3)]
    }

    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn to_floats(x: [v128; 4]) -> [v128; 4] {
        quarters!(|I| f32x4_convert_i32x4(x[I]))
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn to_floats(x: [v128; 8]) -> [v128; 4] {
        quarters!(|I| {
            let [low, high] = [x[2 * I], x[2 * I + 1]];
            let (even, odd) = (i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high));
            f32x4_convert_i32x4(i32x4_add(even, odd))
        })
    }

    #[inline(always)]
    unsafe fn add(x: [v128; 4], y: [v128; 4]) -> [v128; 4] {
        quarters!(|I| f32x4_add(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn mul(x: [v128; 4], y: [v128; 4]) -> [v128; 4] {
        quarters!(|I| f32x4_mul(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn mul_add(x: [v128; 4], y: [v128; 4], z: [v128; 4]) -> [v128; 4] {
        quarters!(|I| mul_add_lanes(x[I], y[I], z[I]))
    }
}
