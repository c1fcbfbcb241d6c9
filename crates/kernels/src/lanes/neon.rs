//! NEON: four registers are a vector.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::{Job, LANES, Lanes};

#[derive(Clone, Copy)]
pub(super) struct Neon(pulp::aarch64::Neon);

impl Neon {
    #[inline]
    pub(super) fn try_new() -> Option<Self> {
        pulp::aarch64::Neon::try_new().map(Self)
    }

    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        self.0.vectorize(
            #[inline(always)]
            || job.run(self),
        )
    }
}

impl Lanes for Neon {
    type Vector = [float32x4_t; 4];
    const WIDE_TILES: bool = false;

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
