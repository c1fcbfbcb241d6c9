//! NEON: four registers are a vector.

use std::arch::aarch64::*;
use std::arch::asm;

use half::{bf16, f16};

use super::{Kernel, LANES, Lanes, add_pairs_plainly};

#[derive(Clone, Copy)]
pub(super) struct Neon(pulp::aarch64::Neon);

impl Neon {
    #[inline]
    pub(super) fn try_new() -> Option<Self> {
        pulp::aarch64::Neon::try_new().map(Self)
    }
}

impl Lanes for Neon {
    type Vector = [float32x4_t; 4];
    type Pairs = [bf16; 2 * LANES];
    const WIDE_TILES: bool = false;

    #[inline]
    fn run<J: Kernel>(self, job: J) -> J::Output {
        self.0.vectorize(
            #[inline(always)]
            || job.run(self),
        )
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // The intrinsic is not stable. SAFETY: nothing is read.
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [float32x4_t; 4] {
        [self.0.neon.vdupq_n_f32(x); 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [float32x4_t; 4] {
        pulp::cast(*x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> [float32x4_t; 4] {
        let quarters: [uint16x4_t; 4] = pulp::cast(*x);
        // SAFETY: the value in `self` is the proof of NEON.
        quarters.map(|quarter| unsafe { vcvt_f32_f16(vreinterpret_f16_u16(quarter)) })
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> [float32x4_t; 4] {
        let quarters: [uint16x4_t; 4] = pulp::cast(*x);
        // SAFETY: the value in `self` is the proof of NEON.
        quarters.map(|quarter| unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(quarter)) })
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> [float32x4_t; 4] {
        let halves: [int8x8_t; 2] = pulp::cast(*x);
        // SAFETY: the value in `self` is the proof of NEON.
        unsafe {
            let [low, high] = halves.map(|half| vmovl_s8(half));
            [vget_low_s16(low), vget_high_s16(low), vget_low_s16(high), vget_high_s16(high)]
                .map(|quarter| vcvtq_f32_s32(vmovl_s16(quarter)))
        }
    }

    #[inline(always)]
    fn to_array(self, x: [float32x4_t; 4]) -> [f32; LANES] {
        pulp::cast(x)
    }

    #[inline(always)]
    fn mul_add(self, x: [float32x4_t; 4], y: [float32x4_t; 4], z: [float32x4_t; 4]) -> [float32x4_t; 4] {
        // SAFETY: the value in `self` is the proof of NEON.
        std::array::from_fn(|i| unsafe { vfmaq_f32(z[i], x[i], y[i]) })
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
    fn reduce(self, vectors: [[float32x4_t; 4]; LANES]) -> [f32; LANES] {
        let neon = self.0.neon;
        // Each step halves what is left of a sum; beginning with the third, two registers become one.
        let mut pairs = [vectors[0][0]; 8];
        for i in 0..8 {
            let [x, y] = [vectors[2 * i], vectors[2 * i + 1]];
            let x = neon.vaddq_f32(neon.vaddq_f32(x[0], x[2]), neon.vaddq_f32(x[1], x[3]));
            let y = neon.vaddq_f32(neon.vaddq_f32(y[0], y[2]), neon.vaddq_f32(y[1], y[3]));
            let (x, y) = (neon.vreinterpretq_f64_f32(x), neon.vreinterpretq_f64_f32(y));
            let (low, high) = (neon.vtrn1q_f64(x, y), neon.vtrn2q_f64(x, y));
            pairs[i] = neon.vaddq_f32(neon.vreinterpretq_f32_f64(low), neon.vreinterpretq_f32_f64(high));
        }
        let mut sums = vectors[0];
        for i in 0..4 {
            sums[i] = neon.vpaddq_f32(pairs[2 * i], pairs[2 * i + 1]);
        }
        pulp::cast(sums)
    }

    #[inline(always)]
    fn transpose(self, rows: [[float32x4_t; 4]; LANES]) -> [[float32x4_t; 4]; LANES] {
        let neon = self.0.neon;
        let mut columns = rows;
        for i in 0..4 {
            for j in 0..4 {
                let [x, y] = [rows[4 * i][j], rows[4 * i + 1][j]];
                let [z, w] = [rows[4 * i + 2][j], rows[4 * i + 3][j]];
                for half in 0..2 {
                    let (a, b) = match half {
                        0 => (neon.vtrn1q_f32(x, y), neon.vtrn1q_f32(z, w)),
                        _ => (neon.vtrn2q_f32(x, y), neon.vtrn2q_f32(z, w)),
                    };
                    let (a, b) = (neon.vreinterpretq_f64_f32(a), neon.vreinterpretq_f64_f32(b));
                    columns[4 * j + half][i] = neon.vreinterpretq_f32_f64(neon.vtrn1q_f64(a, b));
                    columns[4 * j + 2 + half][i] = neon.vreinterpretq_f32_f64(neon.vtrn2q_f64(a, b));
                }
            }
        }
        columns
    }
}
