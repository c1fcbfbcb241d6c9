//! Lengths of the rows of a matrix with a low-rank change: the denominators of DoRA (Liu et al. 2024).

use crate::simd::{dispatch, dot};
use crate::{Matrix, Threads, linear};

/// Rows in a task.
const TASK_ROWS: usize = 16;
/// Rows of the change in memory at a time.
const CHANGED_ROWS: usize = 256;

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

/// Writes the Euclidean lengths of the rows of `weight + scale B A`, `[outputs, inputs]`, to `norms`, `[outputs]`. Some rows of
/// `B A` are in memory at a time.
///
/// # Panics
/// If the lengths do not fit together.
pub fn forward(threads: &Threads, norms: &mut [f32], weight: Matrix<'_>, change: LowRank<'_>) {
    let outputs = norms.len();
    let (inputs, rank) = (weight.len() / outputs.max(1), change.b.len() / outputs.max(1));
    assert!(weight.len() == outputs * inputs && change.a.len() == rank * inputs, "the change is not one of the matrix");
    let mut changes = vec![0.0; CHANGED_ROWS.min(outputs) * inputs];
    for (first, norms) in (0..outputs).step_by(CHANGED_ROWS).zip(norms.chunks_mut(CHANGED_ROWS)) {
        let changes = &mut changes[..norms.len() * inputs];
        let b = &change.b[first * rank..(first + norms.len()) * rank];
        linear::backward_input(threads, changes, b, Matrix::F32(change.a), inputs, false);
        let length = TASK_ROWS * inputs;
        threads.for_each_chunk2((norms, TASK_ROWS), (changes, length), |task, norms, changes| {
            let mut buffer = vec![0.0; inputs];
            let first = first + task * TASK_ROWS;
            dispatch(
                #[inline(always)]
                || {
                    for (row, (norm, row_changes)) in norms.iter_mut().zip(changes.chunks_exact_mut(inputs)).enumerate()
                    {
                        let weights = weight.widened((first + row) * inputs, inputs, &mut buffer);
                        row_changes.iter_mut().zip(weights).for_each(|(x, w)| *x = change.scale.mul_add(*x, *w));
                        *norm = dot(row_changes, row_changes).sqrt();
                    }
                },
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{assert_close, values};

    #[test]
    fn norms_are_those_of_the_changed_rows() {
        let (outputs, inputs, rank, scale) = (CHANGED_ROWS + 37, 50, 3, 0.5);
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
