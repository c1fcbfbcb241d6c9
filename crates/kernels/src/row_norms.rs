//! Lengths of the rows of a matrix with a low-rank change: the denominators of DoRA (Liu et al. 2024).

use crate::simd::{dispatch, dot};
use crate::{Matrix, Threads};

/// Rows in a task.
const TASK_ROWS: usize = 16;

/// A change `scale B A` to a matrix.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// `[rank, inputs]`.
    pub a: &'a [f32],
    /// `[outputs, rank]`.
    pub b: &'a [f32],
    /// What the product is multiplied by.
    pub scale: f32,
}

/// Writes the Euclidean lengths of the rows of `weight + scale B A`, `[outputs, inputs]`, to `norms`, `[outputs]`. One row at a
/// time is in memory.
///
/// # Panics
/// If the lengths do not fit together.
pub fn forward(threads: &Threads, norms: &mut [f32], weight: Matrix<'_>, change: LowRank<'_>) {
    let outputs = norms.len();
    let (inputs, rank) = (weight.len() / outputs.max(1), change.b.len() / outputs.max(1));
    assert!(weight.len() == outputs * inputs && change.a.len() == rank * inputs, "the change is not one of the matrix");
    threads.for_each_chunk(norms, TASK_ROWS, |task, norms| {
        let (mut buffer, mut row) = (vec![0.0; inputs], vec![0.0; inputs]);
        dispatch(
            #[inline(always)]
            || {
                for (output, norm) in (task * TASK_ROWS..).zip(norms) {
                    row.copy_from_slice(weight.widened(output * inputs, inputs, &mut buffer));
                    for (a, b) in change.a.chunks_exact(inputs).zip(&change.b[output * rank..]) {
                        let factor = change.scale * b;
                        for (x, a) in row.iter_mut().zip(a) {
                            *x = factor.mul_add(*a, *x);
                        }
                    }
                    *norm = dot(&row, &row).sqrt();
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
    fn norms_are_those_of_the_changed_rows() {
        let (outputs, inputs, rank, scale) = (37, 50, 3, 0.5);
        let (w, a, b) = (values(outputs * inputs, 0.1), values(rank * inputs, 0.2), values(outputs * rank, 0.3));
        let expected: Vec<f64> = (0..outputs)
            .map(|o| {
                let element = |i: usize| {
                    let change: f64 =
                        (0..rank).map(|r| f64::from(b[o * rank + r]) * f64::from(a[r * inputs + i])).sum();
                    f64::from(w[o * inputs + i]) + scale * change
                };
                (0..inputs).map(|i| element(i).powi(2)).sum::<f64>().sqrt()
            })
            .collect();
        let change = LowRank { a: &a, b: &b, scale: scale as f32 };
        for threads in [1, 3] {
            let mut norms = vec![f32::NAN; outputs];
            forward(&Threads::new(threads), &mut norms, Matrix::F32(&w), change);
            assert_close(&norms, &expected, 1e-6);
        }
    }
}
