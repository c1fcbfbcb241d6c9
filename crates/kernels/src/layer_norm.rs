//! Layer normalisation without weights (Ba et al. 2016): `y = (x - mean(x)) / sqrt(variance(x) + eps)`, row by row. OLMo's norm.

use crate::Threads;
use crate::simd::{dispatch, dot, sum};

/// Rows in a task.
const TASK_ROWS: usize = 32;

/// `out[n] = (x[n] - mean(x[n])) / sqrt(variance(x[n]) + eps)`; `x` and `out` are `[N, dim]`.
pub fn forward(threads: &Threads, out: &mut [f32], x: &[f32], dim: usize, eps: f32) {
    assert!(out.len() == x.len() && x.len().is_multiple_of(dim), "x or out is not [N, {dim}]");
    threads.for_each_chunk(out, dim * TASK_ROWS, |task, out| {
        let x = &x[task * TASK_ROWS * dim..][..out.len()];
        dispatch(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                    normalise(out, x, eps);
                }
            },
        );
    });
}

/// One row of [`forward`]; gives `1 / sqrt(variance(x) + eps)`.
#[inline(always)]
pub(crate) fn normalise(out: &mut [f32], x: &[f32], eps: f32) -> f32 {
    let mean = sum(x) / x.len() as f32;
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x - mean;
    }
    let factor = (dot(out, out) / x.len() as f32 + eps).sqrt().recip();
    for out in out.iter_mut() {
        *out *= factor;
    }
    factor
}

/// Adds the derivative of [`forward`] to `dx`, `[N, dim]`.
///
/// With `r = 1 / sqrt(variance(x) + eps)`: `dx = r (dout - mean(dout) - y mean(dout y))`.
pub fn backward(threads: &Threads, dx: &mut [f32], dout: &[f32], x: &[f32], dim: usize, eps: f32) {
    assert!(dx.len() == x.len() && dout.len() == x.len() && x.len().is_multiple_of(dim), "rows are not [N, {dim}]");
    threads.for_each_chunk(dx, dim * TASK_ROWS, |task, dx| {
        let here = task * TASK_ROWS * dim..task * TASK_ROWS * dim + dx.len();
        let (x, dout) = (&x[here.clone()], &dout[here]);
        let mut y = vec![0.0; dim];
        dispatch(
            #[inline(always)]
            || {
                for ((dx, x), dout) in dx.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(dout.chunks_exact(dim)) {
                    let r = normalise(&mut y, x, eps);
                    let (mean, slope) = (sum(dout) / dim as f32, dot(dout, &y) / dim as f32);
                    for ((dx, &d), &y) in dx.iter_mut().zip(dout).zip(&y) {
                        *dx += r * (d - mean - y * slope);
                    }
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{assert_close, assert_derivative, values, wide};

    fn reference(x: &[f64], dim: usize, eps: f64) -> Vec<f64> {
        let row = |row: &[f64]| {
            let mean = row.iter().sum::<f64>() / dim as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / dim as f64;
            row.iter().map(|x| (x - mean) / (variance + eps).sqrt()).collect::<Vec<_>>()
        };
        x.chunks(dim).flat_map(row).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn rows_and_derivatives_equal_the_plain_ones(rows in 1usize..80, dim in 2usize..70) {
            let (x, dout) = (values(rows * dim, 0.1), values(rows * dim, 0.3));
            let run = |count| {
                let threads = Threads::new(count);
                let (mut out, mut dx) = (vec![f32::NAN; rows * dim], vec![0.0; rows * dim]);
                forward(&threads, &mut out, &x, dim, 1e-5);
                backward(&threads, &mut dx, &dout, &x, dim, 1e-5);
                (out, dx)
            };
            let (out, dx) = run(1);
            prop_assert_eq!((&out, &dx), (&run(3).0, &run(3).1));
            assert_close(&out, &reference(&wide(&x), dim, 1e-5), 1e-5);
            assert_derivative(&dx, &dout, &x, |x| reference(x, dim, 1e-5), 1e-3);
        }
    }
}
