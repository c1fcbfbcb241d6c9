//! AVX-512: one register is a vector.

use std::arch::x86_64::__m512;

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
    fn mul_add(self, x: f32x16, y: f32x16, z: f32x16) -> f32x16 {
        self.0.mul_add_f32x16(x, y, z)
    }

    #[inline(always)]
    fn transpose(self, rows: [f32x16; LANES]) -> [f32x16; LANES] {
        let avx512f = self.0.avx512f;
        let rows: [__m512; LANES] = pulp::cast(rows);
        // First in quarters of registers: quarter q of `quads[g][c]` is column 4 q + c of the rows 4 g to 4 g + 3. Loops, not
        // closures: what is called from a closure may be compiled apart.
        let mut quads = [[rows[0]; 4]; 4];
        for g in 0..4 {
            for half in 0..2 {
                let [x, y, z, w] = [rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]];
                let (a, b) = match half {
                    0 => (avx512f._mm512_unpacklo_ps(x, y), avx512f._mm512_unpacklo_ps(z, w)),
                    _ => (avx512f._mm512_unpackhi_ps(x, y), avx512f._mm512_unpackhi_ps(z, w)),
                };
                let (a, b) = (pulp::cast(a), pulp::cast(b));
                quads[g][2 * half] = pulp::cast(avx512f._mm512_unpacklo_pd(a, b));
                quads[g][2 * half + 1] = pulp::cast(avx512f._mm512_unpackhi_pd(a, b));
            }
        }
        let mut columns = rows;
        for c in 0..4 {
            let [x, y, z, w] = [quads[0][c], quads[1][c], quads[2][c], quads[3][c]];
            for half in 0..2 {
                let (a, b) = match half {
                    0 => (avx512f._mm512_shuffle_f32x4::<0x44>(x, y), avx512f._mm512_shuffle_f32x4::<0x44>(z, w)),
                    _ => (avx512f._mm512_shuffle_f32x4::<0xee>(x, y), avx512f._mm512_shuffle_f32x4::<0xee>(z, w)),
                };
                columns[8 * half + c] = avx512f._mm512_shuffle_f32x4::<0x88>(a, b);
                columns[8 * half + 4 + c] = avx512f._mm512_shuffle_f32x4::<0xdd>(a, b);
            }
        }
        pulp::cast(columns)
    }
}
