//! Root-mean-square normalisation (Zhang and Sennrich 2019): `y = x / sqrt(mean(x^2) + eps) * w`, row by row.

use crate::Threads;
use crate::simd::{dispatch, dot, dot3};
use crate::threads::Chunks;

/// Rows in a task; the derivatives by the weight are summed per task first, then over the tasks in order.
const TASK_ROWS: usize = 32;

/// `out[n, i] = x[n, i] / sqrt(mean over i of x[n, i]^2 + eps) * weight[i]`; `x` and `out` are `[N, weight.len()]`.
pub fn forward(threads: &Threads, out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let dim = weight.len();
    assert!(out.len() == x.len() && x.len().is_multiple_of(dim), "x or out is not [N, {dim}]");
    threads.for_each_chunk(out, dim * TASK_ROWS, |task, out| {
        let x = &x[task * TASK_ROWS * dim..][..out.len()];
        dispatch(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                    normalise(out, x, weight, eps);
                }
            },
        );
    });
}

/// One row of [`forward`].
#[inline(always)]
pub(crate) fn normalise(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    scale(out, x, weight, inverse_root(x, eps));
}

/// `out[i] = x[i] factor weight[i]`.
#[inline(always)]
pub(crate) fn scale(out: &mut [f32], x: &[f32], weight: &[f32], factor: f32) {
    for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * w;
    }
}

/// What [`forward`] multiplies a row by.
#[inline(always)]
pub(crate) fn inverse_root(x: &[f32], eps: f32) -> f32 {
    (dot(x, x) / x.len() as f32 + eps).sqrt().recip()
}

/// Adds the derivatives of [`forward`] to `dx`, `[N, dim]`, and `dweight`, `[dim]`.
///
/// With `r = 1 / sqrt(mean(x^2) + eps)`: `dx = r (dout w - x r^2 mean(dout w x))`, `dw = sum over rows of dout x r`.
pub fn backward(
    threads: &Threads,
    dx: &mut [f32],
    dweight: &mut [f32],
    dout: &[f32],
    x: &[f32],
    weight: &[f32],
    eps: f32,
) {
    let dim = weight.len();
    assert!(dx.len() == x.len() && dout.len() == x.len() && x.len().is_multiple_of(dim), "rows are not [N, {dim}]");
    let mut partial = vec![0.0; (x.len() / dim).div_ceil(TASK_ROWS) * dim];
    threads.for_each_chunk2((dx, dim * TASK_ROWS), (&mut partial, dim), |task, dx, partial| {
        let here = task * TASK_ROWS * dim..task * TASK_ROWS * dim + dx.len();
        let (x, dout) = (&x[here.clone()], &dout[here]);
        dispatch(
            #[inline(always)]
            || {
                for ((dx, x), dout) in dx.chunks_exact_mut(dim).zip(x.chunks_exact(dim)).zip(dout.chunks_exact(dim)) {
                    row_backward(dx, partial, dout, x, weight, eps);
                }
            },
        );
    });
    sum_rows(threads, dweight, &partial);
}

/// Adds one row's share to `dx` and `dweight`.
#[inline(always)]
pub(crate) fn row_backward(dx: &mut [f32], dweight: &mut [f32], dout: &[f32], x: &[f32], weight: &[f32], eps: f32) {
    let r = inverse_root(x, eps);
    let inner = dot3(dout, x, weight);
    let shift = inner / x.len() as f32 * r * r;
    for ((((dx, dw), &d), &x), &w) in dx.iter_mut().zip(dweight).zip(dout).zip(x).zip(weight) {
        *dx += r * (d * w - x * shift);
        *dw += d * x * r;
    }
}

/// `total[i] += sum over the rows of partial[row, i]`, in order.
pub(crate) fn sum_rows(threads: &Threads, total: &mut [f32], partial: &[f32]) {
    let (width, chunk) = (total.len(), 256);
    let sums = Chunks::new(total, chunk);
    threads.run(width.div_ceil(chunk), |task| {
        let first = task * chunk;
        // SAFETY: each task has a chunk of its own.
        let sums = unsafe { sums.slice(first, chunk.min(width - first)) };
        for row in partial.chunks_exact(width) {
            sums.iter_mut().zip(&row[first..]).for_each(|(sum, x)| *sum += x);
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{assert_close, assert_derivative, values, wide};

    fn reference(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
        x.chunks(weight.len())
            .flat_map(|row| {
                let r = 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps).sqrt();
                row.iter().zip(weight).map(move |(x, w)| x * r * w)
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn rows_and_derivatives_equal_the_plain_ones(rows in 1usize..80, dim in 1usize..70) {
            let (x, weight, dout) = (values(rows * dim, 0.1), values(dim, 0.2), values(rows * dim, 0.3));
            let run = |count| {
                let threads = Threads::new(count);
                let (mut out, mut dx, mut dw) = (vec![f32::NAN; rows * dim], vec![0.5; rows * dim], vec![0.25; dim]);
                forward(&threads, &mut out, &x, &weight, 1e-6);
                backward(&threads, &mut dx, &mut dw, &dout, &x, &weight, 1e-6);
                (out, dx, dw)
            };
            let (out, dx, dw) = run(1);
            prop_assert_eq!((&out, &dx, &dw), (&run(3).0, &run(3).1, &run(3).2));
            assert_close(&out, &reference(&wide(&x), &wide(&weight), 1e-6), 1e-5);
            let shifted = |gradient: &[f32], by: f32| gradient.iter().map(|x| x - by).collect::<Vec<_>>();
            assert_derivative(&shifted(&dx, 0.5), &dout, &x, |x| reference(x, &wide(&weight), 1e-6), 1e-3);
            assert_derivative(&shifted(&dw, 0.25), &dout, &weight, |w| reference(&wide(&x), w, 1e-6), 1e-3);
        }
    }
}
