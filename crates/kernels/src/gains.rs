//! Factors of the outputs of a linear layer: DoRA's (Liu et al. 2024), a row's magnitude over its length.
//!
//! ```text
//! y = gain z        dz = gain dy        dgain = sum over rows of dy z
//! ```

use crate::Threads;
use crate::simd::dispatch;

/// Rows in a task.
const TASK_ROWS: usize = 32;
/// Columns in a task that sums over rows.
const TASK_COLUMNS: usize = 64;

/// `y[n] *= gains` for all rows; `y` is `[N, gains.len()]`.
pub fn forward(threads: &Threads, y: &mut [f32], gains: &[f32]) {
    threads.for_each_chunk(y, gains.len() * TASK_ROWS, |_, rows| {
        dispatch(
            #[inline(always)]
            || {
                for row in rows.chunks_exact_mut(gains.len()) {
                    row.iter_mut().zip(gains).for_each(|(y, gain)| *y *= gain);
                }
            },
        );
    });
}

/// `dz[n] = gains dout[n]` for all rows; `dz` and `dout` are `[N, gains.len()]`.
///
/// # Panics
/// If the two differ in length.
pub fn backward_input(threads: &Threads, dz: &mut [f32], dout: &[f32], gains: &[f32]) {
    assert_eq!(dz.len(), dout.len(), "lengths differ");
    let length = gains.len() * TASK_ROWS;
    threads.for_each_chunk(dz, length, |task, rows| {
        dispatch(
            #[inline(always)]
            || {
                for (row, dout) in rows.chunks_exact_mut(gains.len()).zip(dout[task * length..].chunks(gains.len())) {
                    row.iter_mut().zip(dout).zip(gains).for_each(|((dz, d), gain)| *dz = d * gain);
                }
            },
        );
    });
}

/// `sums[o] = sum over n of dout[n, o] z[n, o]`, in the order of the rows and in `f64`; `dout` and `z` are `[N, sums.len()]`.
///
/// # Panics
/// If the two differ in length.
pub fn backward_gains(threads: &Threads, sums: &mut [f64], dout: &[f32], z: &[f32]) {
    assert_eq!(dout.len(), z.len(), "lengths differ");
    let width = sums.len();
    threads.for_each_chunk(sums, TASK_COLUMNS, |task, sums| {
        let columns = task * TASK_COLUMNS..task * TASK_COLUMNS + sums.len();
        dispatch(
            #[inline(always)]
            || {
                sums.fill(0.0);
                for (dout, z) in dout.chunks_exact(width).zip(z.chunks_exact(width)) {
                    let products = dout[columns.clone()].iter().zip(&z[columns.clone()]);
                    sums.iter_mut().zip(products).for_each(|(sum, (d, z))| *sum += f64::from(d * z));
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, values};

    #[test]
    fn outputs_are_scaled_and_derivatives_follow() {
        let (rows, width) = (TASK_ROWS + 5, TASK_COLUMNS + 9);
        let (z, dout) = (values(rows * width, 0.1), values(rows * width, 0.2));
        let gains = values(width, 0.3);
        let times_gains = |x: &[f32]| -> Vec<f32> { x.iter().enumerate().map(|(i, x)| x * gains[i % width]).collect() };
        let products = |o: usize| (0..rows).map(|n| f64::from(dout[n * width + o]) * f64::from(z[n * width + o])).sum();
        let by_gains: Vec<f64> = (0..width).map(products).collect();
        for threads in [1, 3].map(Threads::new) {
            let (mut y, mut dz, mut sums) = (z.clone(), vec![f32::NAN; z.len()], vec![f64::NAN; width]);
            forward(&threads, &mut y, &gains);
            backward_input(&threads, &mut dz, &dout, &gains);
            backward_gains(&threads, &mut sums, &dout, &z);
            assert_eq!((y, dz), (times_gains(&z), times_gains(&dout)));
            assert_close(&sums.iter().map(|&sum| sum as f32).collect::<Vec<_>>(), &by_gains, 1e-6);
        }
    }
}
