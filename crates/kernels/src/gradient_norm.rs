//! The global norm of the gradients and its limit.

use crate::Threads;
use crate::simd::{dispatch, dot};

/// Elements summed in `f32`; their sums are added in `f64`, in order.
pub const BLOCK: usize = 4096;

/// Sum of the squares of `x`, the same for any number of threads.
pub fn sum_of_squares(threads: &Threads, x: &[f32]) -> f64 {
    let mut sums = vec![0.0f32; x.len().div_ceil(BLOCK)];
    block_sums(threads, &mut sums, x);
    sum(&sums)
}

/// Sum of the squares of each [`BLOCK`] of `x`, the last of which may be shorter.
///
/// # Panics
/// If there are fewer `sums` than blocks.
pub fn block_sums(threads: &Threads, sums: &mut [f32], x: &[f32]) {
    let sums = &mut sums[..x.len().div_ceil(BLOCK)];
    threads.for_each_chunk(sums, 16, |task, sums| {
        let blocks = x[task * 16 * BLOCK..].chunks(BLOCK);
        dispatch(
            #[inline(always)]
            || {
                for (sum, block) in sums.iter_mut().zip(blocks) {
                    *sum = dot(block, block);
                }
            },
        );
    });
}

/// The sum over all blocks.
pub fn sum(sums: &[f32]) -> f64 {
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// The factor that brings gradients of `norm` down to `max_norm`, as `torch.nn.utils.clip_grad_norm_` has it:
/// `max_norm / (norm + 1e-6)`, at most 1.
pub fn clip_scale(norm: f64, max_norm: f32) -> f32 {
    (f64::from(max_norm) / (norm + 1e-6)).min(1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::values;

    #[test]
    fn squares_are_summed_exactly_enough_and_alike_for_all_threads() {
        for count in [0, 1, 100, BLOCK * 33 + 7] {
            let x = values(count, 0.1);
            let expected: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            let found = sum_of_squares(&Threads::single(), &x);
            assert!((found - expected).abs() <= 1e-6 * expected);
            assert_eq!(found, sum_of_squares(&Threads::new(3), &x));
        }
    }

    #[test]
    fn large_gradients_shrink_and_small_ones_stay() {
        assert_eq!(clip_scale(0.5, 1.0), 1.0);
        assert!((clip_scale(4.0, 1.0) - 0.25).abs() < 1e-6);
    }
}
