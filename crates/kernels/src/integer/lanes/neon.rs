//! NEON with the dot product extension: four registers are a vector. With the extension for matrices of bytes (`smmla`), the
//! products of many rows are formed from pairs of weight rows and pairs of rows of activations.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::{IntegerKernel, IntegerLanes, Tile, products_by_quads};
use crate::integer::layout::{QUAD_BYTES, QUADS};

/// `MATRIX`: with `smmla`.
pub(super) struct Neon<const MATRIX: bool>;

/// # Safety
/// The processor has the features named.
#[target_feature(enable = "neon,dotprod,fp16")]
pub(super) unsafe fn run(job: impl IntegerKernel) {
    // SAFETY: the features are those of `Neon<false>`.
    unsafe { job.run::<Neon<false>>() }
}

/// # Safety
/// The processor has the features named.
#[target_feature(enable = "neon,dotprod,fp16,i8mm")]
pub(super) unsafe fn run_matrix(job: impl IntegerKernel) {
    // SAFETY: the features are those of `Neon<true>`.
    unsafe { job.run::<Neon<true>>() }
}

impl<const MATRIX: bool> IntegerLanes for Neon<MATRIX> {
    type Floats = [float32x4_t; 4];
    type Integers = [int32x4_t; 4];
    type Bytes = [uint8x16_t; 4];
    const TILE: Tile = if MATRIX { Tile::Paired } else { Tile::Narrow };
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // The intrinsic is not stable. SAFETY: nothing is read.
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [float32x4_t; 4] {
        quarters!(|_I| vdupq_n_f32(x))
    }

    #[inline(always)]
    unsafe fn splat_integer(x: i32) -> [int32x4_t; 4] {
        quarters!(|_I| vdupq_n_s32(x))
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> [uint8x16_t; 4] {
        quarters!(|_I| vreinterpretq_u8_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [uint8x16_t; 4] {
        quarters!(|I| vld1q_u8(from.add(16 * I)))
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, x: [uint8x16_t; 4]) {
        quarters!(|I| vst1q_u8(to.add(16 * I), x[I]));
    }

    #[inline(always)]
    unsafe fn load_numbers(from: *const u8) -> [uint8x16_t; 4] {
        quarters!(|I| veorq_u8(vld1q_u8(from.add(16 * I)), vdupq_n_u8(128)))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [float32x4_t; 4] {
        quarters!(|I| vld1q_f32(from.add(4 * I)))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [float32x4_t; 4]) {
        quarters!(|I| vst1q_f32(to.add(4 * I), x[I]));
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> [float32x4_t; 4] {
        quarters!(|I| vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from.add(8 * I)))))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> [float32x4_t; 4] {
        quarters!(|I| vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(from.add(8 * I))))))
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [float32x4_t; 4] {
        // SAFETY: as above.
        let wide = unsafe {
            let x = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(x)), vmovl_u8(vget_high_u8(x)));
            [vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)]
        };
        quarters!(|I| vcvtq_f32_u32(vmovl_u16(wide[I])))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> [float32x4_t; 4] {
        // SAFETY: as above.
        let wide = unsafe {
            let x = vld1q_s8(from.cast());
            let (low, high) = (vmovl_s8(vget_low_s8(x)), vmovl_s8(vget_high_s8(x)));
            [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)]
        };
        quarters!(|I| vcvtq_f32_s32(vmovl_s16(wide[I])))
    }

    #[inline(always)]
    unsafe fn and(x: [uint8x16_t; 4], mask: u8) -> [uint8x16_t; 4] {
        quarters!(|I| vandq_u8(x[I], vdupq_n_u8(mask)))
    }

    #[inline(always)]
    unsafe fn or(x: [uint8x16_t; 4], y: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        quarters!(|I| vorrq_u8(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn right1(x: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        quarters!(|I| vshrq_n_u8::<1>(x[I]))
    }

    #[inline(always)]
    unsafe fn right2(x: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        quarters!(|I| vshrq_n_u8::<2>(x[I]))
    }

    #[inline(always)]
    unsafe fn right4(x: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        quarters!(|I| vshrq_n_u8::<4>(x[I]))
    }

    #[inline(always)]
    unsafe fn left4(x: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        quarters!(|I| vshlq_n_u8::<4>(x[I]))
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: [int32x4_t; 4], w: [uint8x16_t; 4], a: [uint8x16_t; 4]) -> [int32x4_t; 4] {
        // The intrinsic is not stable; numbers are signed here, small ones because they are below 64.
        quarters!(|I| {
            let mut sum = sum[I];
            asm!(
                "sdot {sum:v}.4s, {w:v}.16b, {a:v}.16b",
                sum = inout(vreg) sum,
                w = in(vreg) w[I],
                a = in(vreg) a[I],
                options(pure, nomem, nostack, preserves_flags),
            );
            sum
        })
    }

    #[inline(always)]
    unsafe fn products<const SMALL: bool, const T: usize, const P: usize>(
        numbers: [*const u8; P],
        activations: *const i8,
        sums: [i32; T],
        quads: Range<usize>,
    ) -> [[[int32x4_t; 4]; T]; P] {
        // SAFETY: the quads are those of the step that the pointers lead to.
        unsafe {
            if !MATRIX {
                return products_by_quads::<Self, SMALL, T, P>(numbers, activations, sums, quads);
            }
            let mut products = [[Self::splat_integer(0); T]; P];
            for p in 0..P {
                for quarter in 0..4 {
                    for pair in 0..T / 2 {
                        let start = [sums[2 * pair], sums[2 * pair + 1]];
                        let start = vcombine_s32(vld1_s32(start.as_ptr()), vld1_s32(start.as_ptr()));
                        // Rows 0 and 1, and rows 2 and 3 of the quarter, each beside both rows of activations.
                        let (mut low, mut high) = (start, start);
                        for quad in quads.clone().step_by(2) {
                            let w = numbers[p].add(quad * QUAD_BYTES + 16 * quarter);
                            let a = vld1q_u8(activations.add(8 * (pair * QUADS + quad)).cast());
                            low = matrix_product(low, vld1q_u8(w), a);
                            high = matrix_product(high, vld1q_u8(w.add(QUAD_BYTES)), a);
                        }
                        products[p][2 * pair][quarter] = vuzp1q_s32(low, high);
                        products[p][2 * pair + 1][quarter] = vuzp2q_s32(low, high);
                    }
                }
            }
            products
        }
    }

    #[inline(always)]
    unsafe fn interleave(quads: [[uint8x16_t; 4]; QUADS]) -> [[uint8x16_t; 4]; QUADS] {
        if !MATRIX {
            return quads;
        }
        let mut paired = quads;
        for (paired, quads) in paired.chunks_exact_mut(2).zip(quads.chunks_exact(2)) {
            for quarter in 0..4 {
                // SAFETY: as above.
                unsafe {
                    let [a, b] = [quads[0], quads[1]].map(|quad| vreinterpretq_u32_u8(quad[quarter]));
                    paired[0][quarter] = vreinterpretq_u8_u32(vzip1q_u32(a, b));
                    paired[1][quarter] = vreinterpretq_u8_u32(vzip2q_u32(a, b));
                }
            }
        }
        paired
    }

    #[inline(always)]
    unsafe fn to_floats(x: [int32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(|I| vcvtq_f32_s32(x[I]))
    }

    #[inline(always)]
    unsafe fn add(x: [float32x4_t; 4], y: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(|I| vaddq_f32(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn mul(x: [float32x4_t; 4], y: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(|I| vmulq_f32(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn mul_add(x: [float32x4_t; 4], y: [float32x4_t; 4], z: [float32x4_t; 4]) -> [float32x4_t; 4] {
        quarters!(|I| vfmaq_f32(z[I], x[I], y[I]))
    }
}

/// `sum` plus the four products of two rows `w` with two rows `a`, each of eight signed columns: `w0 a0, w0 a1, w1 a0, w1 a1`.
///
/// # Safety
/// The processor has the extension for matrices of bytes.
#[inline(always)]
unsafe fn matrix_product(sum: int32x4_t, w: uint8x16_t, a: uint8x16_t) -> int32x4_t {
    let mut sum = sum;
    // The intrinsic is not stable. SAFETY: the instruction reads and writes registers alone.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {w:v}.16b, {a:v}.16b",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            a = in(vreg) a,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
