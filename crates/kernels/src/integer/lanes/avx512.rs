//! AVX-512 with VNNI: one register is a vector.

use std::arch::x86_64::*;

use super::{IntegerKernel, IntegerLanes, Tile};

pub(super) struct Avx512;

/// # Safety
/// The processor has the features named.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn run(job: impl IntegerKernel) {
    // SAFETY: the features are those of `Avx512`.
    unsafe { job.run::<Avx512>() }
}

// SAFETY of all blocks: the caller vouches for the instruction set, and for the pointers as the trait says.
impl IntegerLanes for Avx512 {
    type Floats = __m512;
    type Integers = __m512i;
    type Bytes = __m512i;
    const TILE: Tile = Tile::Wide;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        // SAFETY: nothing is read.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn splat_integer(x: i32) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn splat_quad(from: *const i8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_bytes(to: *mut u8, x: __m512i) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_si512(to.cast(), x) }
    }

    #[inline(always)]
    unsafe fn load_numbers(from: *const u8) -> __m512i {
        // SAFETY: see above.
        unsafe { Self::load_bytes(from) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, x) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn and(x: __m512i, mask: u8) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_and_si512(x, _mm512_set1_epi8(mask as i8)) }
    }

    #[inline(always)]
    unsafe fn or(x: __m512i, y: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_or_si512(x, y) }
    }

    #[inline(always)]
    unsafe fn right1(x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srli_epi16::<1>(x) }
    }

    #[inline(always)]
    unsafe fn right2(x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srli_epi16::<2>(x) }
    }

    #[inline(always)]
    unsafe fn right4(x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_srli_epi16::<4>(x) }
    }

    #[inline(always)]
    unsafe fn left4(x: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_slli_epi16::<4>(x) }
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: __m512i, w: __m512i, a: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpbusd_epi32(sum, w, a) }
    }

    #[inline(always)]
    unsafe fn to_floats(x: __m512i) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    unsafe fn add(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn mul(x: __m512, y: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_mul_ps(x, y) }
    }

    #[inline(always)]
    unsafe fn mul_add(x: __m512, y: __m512, z: __m512) -> __m512 {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(x, y, z) }
    }
}
