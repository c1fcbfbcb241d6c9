//! AVX-512: one register is a vector.

use half::{bf16, f16};
use pulp::f32x16;
use pulp::x86::V4;

use super::{Job, LANES, Lanes};

#[derive(Clone, Copy)]
pub(super) struct Avx512(V4);

impl Avx512 {
    #[inline]
    pub(super) fn try_new() -> Option<Self> {
        V4::try_new().map(Self)
    }

    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        self.0.vectorize(
            #[inline(always)]
            || job.run(self),
        )
    }
}

impl Lanes for Avx512 {
    type Vector = f32x16;
    const WIDE_TILES: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> f32x16 {
        self.0.splat_f32x16(x)
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> f32x16 {
        pulp::cast(*x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> f32x16 {
        pulp::cast(self.0.avx512f._mm512_cvtph_ps(pulp::cast(*x)))
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> f32x16 {
        let avx512f = self.0.avx512f;
        pulp::cast(avx512f._mm512_slli_epi32::<16>(avx512f._mm512_cvtepu16_epi32(pulp::cast(*x))))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> f32x16 {
        let avx512f = self.0.avx512f;
        pulp::cast(avx512f._mm512_cvtepi32_ps(avx512f._mm512_cvtepi8_epi32(pulp::cast(*x))))
    }

    #[inline(always)]
    fn to_array(self, x: f32x16) -> [f32; LANES] {
        pulp::cast(x)
    }

    #[inline(always)]
    fn mul(self, x: f32x16, y: f32x16) -> f32x16 {
        pulp::cast(self.0.avx512f._mm512_mul_ps(pulp::cast(x), pulp::cast(y)))
    }

    #[inline(always)]
    fn mul_add(self, x: f32x16, y: f32x16, z: f32x16) -> f32x16 {
        self.0.mul_add_f32x16(x, y, z)
    }
}
