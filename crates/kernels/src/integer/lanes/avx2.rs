//! AVX2 with FMA and F16C, with or without VNNI: two registers are a vector.

use std::arch::x86_64::*;

use super::{IntegerKernel, IntegerLanes, Tile};

pub(super) struct Avx2<const VNNI: bool>;

/// # Safety
/// The processor has the features named.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run(job: impl IntegerKernel) {
    // SAFETY: the features are those of `Avx2<false>`.
    unsafe { job.run::<Avx2<false>>() }
}

/// # Safety
/// The processor has the features named.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub(super) unsafe fn run_vnni(job: impl IntegerKernel) {
    // SAFETY: the features are those of `Avx2<true>`.
    unsafe { job.run::<Avx2<true>>() }
}

/// `f` of both halves.
macro_rules! both {
    (|$i:ident| $f:expr) => {
        // SAFETY: the caller vouches for the instruction set, and for the pointers as the trait says.
        unsafe {
            [
                {
                    const $i: usize = 0;
                    $f
                },
                {
                    const $i: usize = 1;
                    $f
                },
            ]
        }
    };
}

impl<const VNNI: bool> IntegerLanes for Avx2<VNNI> {
    type Floats = [__m256; 2];
    type Integers = [__m256i; 2];
    type Bytes = [__m256i; 2];
    const TILE: Tile = Tile::Narrow;
    const OFFSET: i32 = if VNNI { 0 } else { 128 };

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: nothing is read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        both!(|_I| _mm256_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn splat_integer(x: i32) -> [__m256i; 2] {
        both!(|_I| _mm256_set1_epi32(x))
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> [__m256i; 2] {
        both!(|_I| _mm256_set1_epi32(from.cast::<i32>().read_unaligned()))
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> [__m256i; 2] {
        both!(|I| _mm256_loadu_si256(from.add(32 * I).cast()))
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, x: [__m256i; 2]) {
        both!(|I| _mm256_storeu_si256(to.add(32 * I).cast(), x[I]));
    }

    #[inline(always)]
    unsafe fn load_numbers(from: *const u8) -> [__m256i; 2] {
        if VNNI {
            both!(|I| _mm256_loadu_si256(from.add(32 * I).cast()))
        } else {
            both!(|I| _mm256_xor_si256(_mm256_loadu_si256(from.add(32 * I).cast()), _mm256_set1_epi8(-128)))
        }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        both!(|I| _mm256_loadu_ps(from.add(8 * I)))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: [__m256; 2]) {
        both!(|I| _mm256_storeu_ps(to.add(8 * I), x[I]));
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> [__m256; 2] {
        both!(|I| _mm256_cvtph_ps(_mm_loadu_si128(from.add(16 * I).cast())))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> [__m256; 2] {
        both!(|I| {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(16 * I).cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        })
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> [__m256; 2] {
        both!(|I| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8 * I).cast()))))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> [__m256; 2] {
        both!(|I| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8 * I).cast()))))
    }

    #[inline(always)]
    unsafe fn and(x: [__m256i; 2], mask: u8) -> [__m256i; 2] {
        both!(|I| _mm256_and_si256(x[I], _mm256_set1_epi8(mask as i8)))
    }

    #[inline(always)]
    unsafe fn or(x: [__m256i; 2], y: [__m256i; 2]) -> [__m256i; 2] {
        both!(|I| _mm256_or_si256(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn right1(x: [__m256i; 2]) -> [__m256i; 2] {
        both!(|I| _mm256_srli_epi16::<1>(x[I]))
    }

    #[inline(always)]
    unsafe fn right2(x: [__m256i; 2]) -> [__m256i; 2] {
        both!(|I| _mm256_srli_epi16::<2>(x[I]))
    }

    #[inline(always)]
    unsafe fn right4(x: [__m256i; 2]) -> [__m256i; 2] {
        both!(|I| _mm256_srli_epi16::<4>(x[I]))
    }

    #[inline(always)]
    unsafe fn left4(x: [__m256i; 2]) -> [__m256i; 2] {
        both!(|I| _mm256_slli_epi16::<4>(x[I]))
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: [__m256i; 2], w: [__m256i; 2], a: [__m256i; 2]) -> [__m256i; 2] {
        if VNNI {
            return both!(|I| _mm256_dpbusd_avx_epi32(sum[I], w[I], a[I]));
        }
        both!(|I| {
            // Pairs are summed in 16 bits: 2 * 63 * 127 and 2 * 128 * 127 fit, 2 * 255 * 127 would not.
            let pairs = if SMALL {
                _mm256_maddubs_epi16(w[I], a[I])
            } else {
                _mm256_maddubs_epi16(_mm256_abs_epi8(w[I]), _mm256_sign_epi8(a[I], w[I]))
            };
            _mm256_add_epi32(sum[I], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        })
    }

    #[inline(always)]
    unsafe fn to_floats(x: [__m256i; 2]) -> [__m256; 2] {
        both!(|I| _mm256_cvtepi32_ps(x[I]))
    }

    #[inline(always)]
    unsafe fn add(x: [__m256; 2], y: [__m256; 2]) -> [__m256; 2] {
        both!(|I| _mm256_add_ps(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn mul(x: [__m256; 2], y: [__m256; 2]) -> [__m256; 2] {
        both!(|I| _mm256_mul_ps(x[I], y[I]))
    }

    #[inline(always)]
    unsafe fn mul_add(x: [__m256; 2], y: [__m256; 2], z: [__m256; 2]) -> [__m256; 2] {
        both!(|I| _mm256_fmadd_ps(x[I], y[I], z[I]))
    }
}
