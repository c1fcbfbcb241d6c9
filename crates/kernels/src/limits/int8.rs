//! The peak of inner products of 8-bit integers: the instruction that quantised products live on, from registers.

use std::hint::black_box;

use super::peak;
use crate::Threads;
use crate::simd::{LANES, dispatch};

/// Rounds of a probe, each of a vector instruction per chain.
const ROUNDS: usize = 4_000_000;

/// The best that this processor does with 8-bit integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8Peak {
    /// Multiplications and additions per second on all threads; a product added to a sum counts as two.
    pub operations_per_second: f64,
    /// The instructions measured.
    pub instructions: &'static str,
}

/// Measures products of 8-bit integers added up in 32 bits, by the best instructions this processor has for them.
pub fn int8_peak(threads: &Threads) -> Int8Peak {
    let (instructions, probe) = best_probe();
    Int8Peak { operations_per_second: peak(threads, probe), instructions }
}

/// A probe gives the operations that it carried out.
type Probe = fn() -> f64;

#[cfg(target_arch = "x86_64")]
fn best_probe() -> (&'static str, Probe) {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has what the function asks for.
        ("AVX-512 VNNI", || unsafe { x86::avx512_vnni() })
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("avxvnni") {
        // SAFETY: the processor has what the function asks for.
        ("AVX-VNNI", || unsafe { x86::avx_vnni() })
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has what the function asks for.
        ("AVX2", || unsafe { x86::avx2() })
    } else {
        ("32-bit multiply-adds", portable)
    }
}

#[cfg(target_arch = "aarch64")]
fn best_probe() -> (&'static str, Probe) {
    if std::arch::is_aarch64_feature_detected!("i8mm") {
        // SAFETY: the processor has what the function asks for.
        ("NEON smmla", || unsafe { neon::smmla() })
    } else if std::arch::is_aarch64_feature_detected!("dotprod") {
        // SAFETY: the processor has what the function asks for.
        ("NEON sdot", || unsafe { neon::sdot() })
    } else {
        ("32-bit multiply-adds", portable)
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn best_probe() -> (&'static str, Probe) {
    ("32-bit multiply-adds", portable)
}

/// For processors without an instruction for 8-bit products: their values are widened, so this is what there is.
fn portable() -> f64 {
    const CHAINS: usize = 4;
    dispatch(
        #[inline(always)]
        || {
            let mut sums = black_box([[1i32; LANES]; CHAINS]);
            let factor = black_box(3);
            for _ in 0..ROUNDS {
                for sum in sums.as_flattened_mut() {
                    *sum = sum.wrapping_mul(factor).wrapping_add(factor);
                }
            }
            black_box(sums);
        },
    );
    (2 * ROUNDS * CHAINS * LANES) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn avx512_vnni() -> f64 {
        const CHAINS: usize = crate::limits::CHAINS[0];
        let (a, b) = (_mm512_set1_epi8(black_box(1)), _mm512_set1_epi8(black_box(2)));
        let mut sums = black_box([_mm512_setzero_si512(); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (2 * 64 * ROUNDS * CHAINS) as f64
    }

    #[target_feature(enable = "avx2,avxvnni")]
    pub(super) fn avx_vnni() -> f64 {
        const CHAINS: usize = crate::limits::CHAINS[1];
        let (a, b) = (_mm256_set1_epi8(black_box(1)), _mm256_set1_epi8(black_box(2)));
        let mut sums = black_box([_mm256_setzero_si256(); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (2 * 32 * ROUNDS * CHAINS) as f64
    }

    /// Products of bytes added in pairs, these in pairs again, and those to the sums.
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2() -> f64 {
        const CHAINS: usize = crate::limits::CHAINS[1];
        let (a, ones) = (_mm256_set1_epi8(black_box(1)), _mm256_set1_epi16(black_box(1)));
        let mut sums = black_box([_mm256_setzero_si256(); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // With the sum as a factor no product can be moved out of the loop.
                let pairs = _mm256_maddubs_epi16(a, *sum);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
        (2 * 32 * ROUNDS * CHAINS) as f64
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::*;

    #[target_feature(enable = "neon,dotprod")]
    pub(super) fn sdot() -> f64 {
        const CHAINS: usize = crate::limits::CHAINS[0];
        let (a, b) = (vdupq_n_s8(black_box(1)), vdupq_n_s8(black_box(2)));
        let mut sums = black_box([vdupq_n_s32(0); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // SAFETY: the instruction reads and writes the named registers alone; the function's features have it.
                unsafe {
                    asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) *sum, in(vreg) a, in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        black_box(sums);
        (2 * 16 * ROUNDS * CHAINS) as f64
    }

    /// Products of two rows of eight with two rows of eight.
    #[target_feature(enable = "neon,i8mm")]
    pub(super) fn smmla() -> f64 {
        const CHAINS: usize = crate::limits::CHAINS[0];
        let (a, b) = (vdupq_n_s8(black_box(1)), vdupq_n_s8(black_box(2)));
        let mut sums = black_box([vdupq_n_s32(0); CHAINS]);
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // SAFETY: the instruction reads and writes the named registers alone; the function's features have it.
                unsafe {
                    asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) *sum, in(vreg) a, in(vreg) b,
                        options(pure, nomem, nostack, preserves_flags));
                }
            }
        }
        black_box(sums);
        (2 * 32 * ROUNDS * CHAINS) as f64
    }
}
