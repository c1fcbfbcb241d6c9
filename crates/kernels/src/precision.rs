//! Numbers kept in fewer bits than they are computed in.

use half::bf16;

use crate::Threads;
use crate::simd::dispatch;

/// Elements in a task.
const TASK_ELEMENTS: usize = 16 * 1024;

/// A number as it is kept between its uses.
pub trait Stored: Copy + Default + Send + Sync {
    /// The number in `f32`.
    fn widen(self) -> f32;
    /// The nearest number that can be kept.
    fn round(x: f32) -> Self;
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn round(x: f32) -> Self {
        x
    }
}

/// Half the memory, for a relative error of at most 2^-9 (0.2 %).
impl Stored for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Ties go to even; unlike `bf16::from_f32` without a branch for NaN, some of which are lost.
    #[inline(always)]
    fn round(x: f32) -> Self {
        let bits = x.to_bits();
        bf16::from_bits((bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16)
    }
}

/// Sets `out` to the nearest numbers of `x`.
///
/// # Panics
/// If the two differ in length.
pub fn round(threads: &Threads, out: &mut [bf16], x: &[f32]) {
    convert(threads, out, x, <bf16 as Stored>::round);
}

/// Sets `out` to the numbers of `x`.
///
/// # Panics
/// If the two differ in length.
pub fn widen(threads: &Threads, out: &mut [f32], x: &[bf16]) {
    convert(threads, out, x, Stored::widen);
}

#[inline(always)]
fn convert<A: Copy + Sync, B: Send>(threads: &Threads, out: &mut [B], x: &[A], element: impl Fn(A) -> B + Sync) {
    assert_eq!(out.len(), x.len(), "lengths differ");
    threads.for_each_chunk(out, TASK_ELEMENTS, |task, out| {
        let x = &x[task * TASK_ELEMENTS..];
        dispatch(
            #[inline(always)]
            || {
                for (out, &x) in out.iter_mut().zip(x) {
                    *out = element(x);
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_come_back() {
        let x: Vec<f32> = values(TASK_ELEMENTS + 37, 0.3).iter().map(|x| 100.0 * x).collect();
        let expected: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        let (mut rounded, mut wide) = (vec![bf16::ZERO; x.len()], vec![0.0; x.len()]);
        let threads = Threads::new(2);
        round(&threads, &mut rounded, &x);
        assert_eq!(rounded, expected);
        widen(&threads, &mut wide, &rounded);
        assert_eq!(wide, expected.iter().map(|x| x.to_f32()).collect::<Vec<_>>());
    }
}
