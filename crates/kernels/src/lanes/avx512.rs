//! AVX-512: one register is a vector. With its extension for `bf16`, pairs of them are multiplied by an instruction.

use std::arch::x86_64::*;
use std::mem::transmute;

use half::{bf16, f16};
use pulp::f32x16;
use pulp::x86::V4;

use super::{Half, Kernel, LANES, Lanes, add_pairs_plainly};

/// `PAIRS`: with products of pairs of `bf16`.
#[derive(Clone, Copy)]
pub(super) struct Avx512<const PAIRS: bool>(V4);

impl<const PAIRS: bool> Avx512<PAIRS> {
    #[inline]
    pub(super) fn try_new() -> Option<Self> {
        let has_pairs = !PAIRS || is_x86_feature_detected!("avx512bf16");
        V4::try_new().filter(|_| has_pairs).map(Self)
    }
}

/// # Safety
/// The processor has the features named.
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
unsafe fn run_pairs<J: Kernel, L: Lanes>(job: J, lanes: L) -> J::Output {
    job.run(lanes)
}

impl<const PAIRS: bool> Lanes for Avx512<PAIRS> {
    type Vector = f32x16;
    type Pairs = __m512i;
    const WIDE_TILES: bool = true;

    #[inline]
    fn run<J: Kernel>(self, job: J) -> J::Output {
        if PAIRS {
            // SAFETY: the value in `self` is the proof of these features.
            return unsafe { run_pairs(job, self) };
        }
        self.0.vectorize(
            #[inline(always)]
            || job.run(self),
        )
    }

    #[inline(always)]
    fn load_pairs(self, x: &[bf16; 2 * LANES]) -> __m512i {
        pulp::cast(*x)
    }

    #[inline(always)]
    fn round_f16(self, x: &[f16; 2 * LANES]) -> [bf16; 2 * LANES] {
        if PAIRS {
            let [low, high]: [[f16; LANES]; 2] = pulp::cast(*x);
            let (low, high) = (pulp::cast(self.load_f16(&low)), pulp::cast(self.load_f16(&high)));
            // SAFETY: the value in `self` is the proof of the instruction; the vectors are of the same size, any bits are numbers.
            return unsafe { transmute::<__m512bh, [bf16; 2 * LANES]>(_mm512_cvtne2ps_pbh(high, low)) };
        }
        x.map(Half::to_bf16)
    }

    #[inline(always)]
    fn add_pairs(self, x: __m512i, y: __m512i, sum: f32x16) -> f32x16 {
        if PAIRS {
            // SAFETY: the value in `self` is the proof of the instruction; the vectors are of the same size, any bits are numbers.
            return unsafe {
                let (x, y) = (transmute::<__m512i, __m512bh>(x), transmute::<__m512i, __m512bh>(y));
                pulp::cast(_mm512_dpbf16_ps(pulp::cast(sum), x, y))
            };
        }
        add_pairs_plainly(self, &pulp::cast(x), &pulp::cast(y), sum)
    }

    #[inline(always)]
    fn prefetch(self, address: *const u8) {
        // SAFETY: nothing is read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

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
    fn reduce(self, vectors: [f32x16; LANES]) -> [f32; LANES] {
        let avx512f = self.0.avx512f;
        let vectors: [__m512; LANES] = pulp::cast(vectors);
        // Each step halves what is left of a sum, and two registers become one. They meet in such an order that the sums end in
        // theirs.
        let mut halves = [vectors[0]; 8];
        for (i, half) in halves.iter_mut().enumerate() {
            let first = 8 * (i % 2) + i / 2;
            let [x, y] = [vectors[first], vectors[first + 4]];
            let (low, high) = (avx512f._mm512_shuffle_f32x4::<0x44>(x, y), avx512f._mm512_shuffle_f32x4::<0xee>(x, y));
            *half = avx512f._mm512_add_ps(low, high);
        }
        let mut quarters = [vectors[0]; 4];
        for i in 0..4 {
            let [x, y] = [halves[2 * i], halves[2 * i + 1]];
            let (low, high) = (avx512f._mm512_shuffle_f32x4::<0x88>(x, y), avx512f._mm512_shuffle_f32x4::<0xdd>(x, y));
            quarters[i] = avx512f._mm512_add_ps(low, high);
        }
        let mut pairs = [vectors[0]; 2];
        for i in 0..2 {
            let (x, y) = (pulp::cast(quarters[2 * i]), pulp::cast(quarters[2 * i + 1]));
            let (low, high) = (avx512f._mm512_unpacklo_pd(x, y), avx512f._mm512_unpackhi_pd(x, y));
            pairs[i] = avx512f._mm512_add_ps(pulp::cast(low), pulp::cast(high));
        }
        let [x, y] = pairs;
        let (low, high) = (avx512f._mm512_shuffle_ps::<0x88>(x, y), avx512f._mm512_shuffle_ps::<0xdd>(x, y));
        pulp::cast(avx512f._mm512_add_ps(low, high))
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
