//! WebAssembly's SIMD: four registers are a vector.

use std::arch::wasm32::*;

use half::{bf16, f16};

use super::{Kernel, LANES, Lanes, add_pairs_plainly};
use crate::fused::mul_add_lanes;

#[derive(Clone, Copy)]
pub(super) struct Wasm;

/// Sixteen bytes of `x`, from `quarter` times `size` on.
#[inline(always)]
fn load<T: bytemuck::Pod>(x: &[T; LANES], quarter: usize) -> v128 {
    let size = 4 * size_of::<T>();
    let bytes = bytemuck::bytes_of(x)[quarter * size..].as_ptr();
    // SAFETY: a quarter of the array, which is as long as what is read.
    unsafe {
        match size {
            4 => v128_load32_zero(bytes.cast()),
            8 => v128_load64_zero(bytes.cast()),
            _ => v128_load(bytes.cast()),
        }
    }
}

/// Four numbers of IEEE half precision, each in the lower half of a lane.
#[inline(always)]
pub(crate) fn widen_halves(x: v128) -> v128 {
    let magnitude = i32x4_shl(v128_and(x, i32x4_splat(0x7fff)), 13);
    // As an `f32`, the exponent is too small by the difference of the biases, of subnormal numbers too.
    let number = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 112) << 23)));
    let is_infinite = i32x4_ge(magnitude, i32x4_splat(0x7c00 << 13));
    let exponent = v128_and(is_infinite, i32x4_splat(0x7f80_0000));
    v128_or(v128_or(number, exponent), i32x4_shl(v128_and(x, i32x4_splat(0x8000)), 16))
}

/// The columns of four rows.
#[inline(always)]
fn transpose(rows: [v128; 4]) -> [v128; 4] {
    let [a, b, c, d] = rows;
    let (ab_low, ab_high) = (i32x4_shuffle::<0, 4, 1, 5>(a, b), i32x4_shuffle::<2, 6, 3, 7>(a, b));
    let (cd_low, cd_high) = (i32x4_shuffle::<0, 4, 1, 5>(c, d), i32x4_shuffle::<2, 6, 3, 7>(c, d));
    [
        i64x2_shuffle::<0, 2>(ab_low, cd_low),
        i64x2_shuffle::<1, 3>(ab_low, cd_low),
        i64x2_shuffle::<0, 2>(ab_high, cd_high),
        i64x2_shuffle::<1, 3>(ab_high, cd_high),
    ]
}

impl Lanes for Wasm {
    type Vector = [v128; 4];
    type Pairs = [bf16; 2 * LANES];
    const WIDE_TILES: bool = false;

    #[inline]
    fn run<J: Kernel>(self, job: J) -> J::Output {
        job.run(self)
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    #[inline(always)]
    fn splat(self, x: f32) -> [v128; 4] {
        [f32x4_splat(x); 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [v128; 4] {
        [load(x, 0), load(x, 1), load(x, 2), load(x, 3)]
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> [v128; 4] {
        [load(x, 0), load(x, 1), load(x, 2), load(x, 3)].map(|x| widen_halves(u32x4_extend_low_u16x8(x)))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> [v128; 4] {
        [load(x, 0), load(x, 1), load(x, 2), load(x, 3)].map(|x| i32x4_shl(u32x4_extend_low_u16x8(x), 16))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> [v128; 4] {
        [load(x, 0), load(x, 1), load(x, 2), load(x, 3)]
            .map(|x| f32x4_convert_i32x4(i32x4_extend_low_i16x8(i16x8_extend_low_i8x16(x))))
    }

    #[inline(always)]
    fn to_array(self, x: [v128; 4]) -> [f32; LANES] {
        let mut array = [0.0f32; LANES];
        for (x, part) in x.into_iter().zip(array.chunks_exact_mut(4)) {
            // SAFETY: four floats.
            unsafe { v128_store(part.as_mut_ptr().cast(), x) };
        }
        array
    }

    #[inline(always)]
    fn mul_add(self, x: [v128; 4], y: [v128; 4], z: [v128; 4]) -> [v128; 4] {
        std::array::from_fn(
            #[inline(always)]
            |i| mul_add_lanes(x[i], y[i], z[i]),
        )
    }

    #[inline(always)]
    fn load_pairs(self, x: &[bf16; 2 * LANES]) -> Self::Pairs {
        *x
    }

    #[inline(always)]
    fn add_pairs(self, x: Self::Pairs, y: Self::Pairs, sum: Self::Vector) -> Self::Vector {
        add_pairs_plainly(self, &x, &y, sum)
    }

    #[inline(always)]
    fn reduce(self, vectors: [[v128; 4]; LANES]) -> [f32; LANES] {
        let mut sums = [0.0f32; LANES];
        for (vectors, sums) in vectors.as_chunks::<4>().0.iter().zip(sums.chunks_exact_mut(4)) {
            let quarters = vectors.map(|x| f32x4_add(f32x4_add(x[0], x[2]), f32x4_add(x[1], x[3])));
            let [a, b, c, d] = transpose(quarters);
            // SAFETY: four floats.
            unsafe { v128_store(sums.as_mut_ptr().cast(), f32x4_add(f32x4_add(a, c), f32x4_add(b, d))) };
        }
        sums
    }

    #[inline(always)]
    fn transpose(self, rows: [[v128; 4]; LANES]) -> [[v128; 4]; LANES] {
        let mut columns = rows;
        for i in 0..4 {
            for j in 0..4 {
                let block = transpose([rows[4 * i][j], rows[4 * i + 1][j], rows[4 * i + 2][j], rows[4 * i + 3][j]]);
                for (k, column) in block.into_iter().enumerate() {
                    columns[4 * j + k][i] = column;
                }
            }
        }
        columns
    }
}
