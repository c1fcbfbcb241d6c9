//! AVX2 with FMA and F16C: two registers are a vector.

use std::arch::x86_64::{__m128i, __m256, _MM_HINT_T0, _mm_prefetch, _mm256_cvtph_ps};

use half::{bf16, f16};

use super::{Kernel, LANES, Lanes, add_pairs_plainly};

pulp::simd_type! {
    /// The proof that the processor has these features.
    struct Features {
        avx: "avx",
        avx2: "avx2",
        fma: "fma",
        f16c: "f16c",
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2(Features);

impl Avx2 {
    #[inline]
    pub(super) fn try_new() -> Option<Self> {
        Features::try_new().map(Self)
    }
}

impl Lanes for Avx2 {
    type Vector = [__m256; 2];
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
        // SAFETY: nothing is read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [__m256; 2] {
        [self.0.avx._mm256_set1_ps(x); 2]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [__m256; 2] {
        pulp::cast(*x)
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> [__m256; 2] {
        let halves: [__m128i; 2] = pulp::cast(*x);
        // SAFETY: `Features` is the proof of F16C.
        halves.map(|half| unsafe { _mm256_cvtph_ps(half) })
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> [__m256; 2] {
        let avx2 = self.0.avx2;
        let halves: [__m128i; 2] = pulp::cast(*x);
        halves.map(|half| pulp::cast(avx2._mm256_slli_epi32::<16>(avx2._mm256_cvtepu16_epi32(half))))
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> [__m256; 2] {
        let Features { avx, avx2, .. } = self.0;
        let halves: [[i8; 8]; 2] = pulp::cast(*x);
        halves.map(|half| {
            let bytes: [[i8; 8]; 2] = [half, [0; 8]];
            avx._mm256_cvtepi32_ps(avx2._mm256_cvtepi8_epi32(pulp::cast(bytes)))
        })
    }

    #[inline(always)]
    fn to_array(self, x: [__m256; 2]) -> [f32; LANES] {
        pulp::cast(x)
    }

    #[inline(always)]
    fn mul_add(self, x: [__m256; 2], y: [__m256; 2], z: [__m256; 2]) -> [__m256; 2] {
        let fma = self.0.fma;
        [fma._mm256_fmadd_ps(x[0], y[0], z[0]), fma._mm256_fmadd_ps(x[1], y[1], z[1])]
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
    fn reduce(self, vectors: [[__m256; 2]; LANES]) -> [f32; LANES] {
        let avx = self.0.avx;
        // Each step halves what is left of a sum; beginning with the second, two registers become one. They meet in such an order
        // that the sums end in theirs.
        let mut quarters = [vectors[0][0]; 8];
        for (i, quarter) in quarters.iter_mut().enumerate() {
            let first = i + i / 4 * 4;
            let [x, y] = [vectors[first], vectors[first + 4]];
            let (x, y) = (avx._mm256_add_ps(x[0], x[1]), avx._mm256_add_ps(y[0], y[1]));
            let (low, high) = (avx._mm256_permute2f128_ps::<0x20>(x, y), avx._mm256_permute2f128_ps::<0x31>(x, y));
            *quarter = avx._mm256_add_ps(low, high);
        }
        let mut pairs = [vectors[0][0]; 4];
        for i in 0..4 {
            let (x, y) = (pulp::cast(quarters[2 * i]), pulp::cast(quarters[2 * i + 1]));
            let (low, high) = (avx._mm256_unpacklo_pd(x, y), avx._mm256_unpackhi_pd(x, y));
            pairs[i] = avx._mm256_add_ps(pulp::cast(low), pulp::cast(high));
        }
        let mut sums = vectors[0];
        for i in 0..2 {
            let [x, y] = [pairs[2 * i], pairs[2 * i + 1]];
            let (low, high) = (avx._mm256_shuffle_ps::<0x88>(x, y), avx._mm256_shuffle_ps::<0xdd>(x, y));
            sums[i] = avx._mm256_add_ps(low, high);
        }
        pulp::cast(sums)
    }

    #[inline(always)]
    fn transpose(self, rows: [[__m256; 2]; LANES]) -> [[__m256; 2]; LANES] {
        let mut columns = rows;
        for i in 0..2 {
            for j in 0..2 {
                let mut block = [rows[0][0]; 8];
                for row in 0..8 {
                    block[row] = rows[8 * i + row][j];
                }
                let block = self.transpose_block(block);
                for column in 0..8 {
                    columns[8 * j + column][i] = block[column];
                }
            }
        }
        columns
    }
}

impl Avx2 {
    /// The columns of eight rows of eight.
    #[inline(always)]
    fn transpose_block(self, rows: [__m256; 8]) -> [__m256; 8] {
        let avx = self.0.avx;
        // First in halves of registers: half h of `quads[g][c]` is column 4 h + c of the rows 4 g to 4 g + 3. Loops, not closures:
        // what is called from a closure may be compiled apart.
        let mut quads = [[rows[0]; 4]; 2];
        for g in 0..2 {
            for half in 0..2 {
                let [x, y, z, w] = [rows[4 * g], rows[4 * g + 1], rows[4 * g + 2], rows[4 * g + 3]];
                let (a, b) = match half {
                    0 => (avx._mm256_unpacklo_ps(x, y), avx._mm256_unpacklo_ps(z, w)),
                    _ => (avx._mm256_unpackhi_ps(x, y), avx._mm256_unpackhi_ps(z, w)),
                };
                let (a, b) = (pulp::cast(a), pulp::cast(b));
                quads[g][2 * half] = pulp::cast(avx._mm256_unpacklo_pd(a, b));
                quads[g][2 * half + 1] = pulp::cast(avx._mm256_unpackhi_pd(a, b));
            }
        }
        let mut columns = rows;
        for c in 0..4 {
            columns[c] = avx._mm256_permute2f128_ps::<0x20>(quads[0][c], quads[1][c]);
            columns[4 + c] = avx._mm256_permute2f128_ps::<0x31>(quads[0][c], quads[1][c]);
        }
        columns
    }
}
