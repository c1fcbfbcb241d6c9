//! Biases of linear layers.

use crate::Threads;
use crate::rms_norm::sum_rows;

/// Rows in a task.
const TASK_ROWS: usize = 32;

/// `x[n] += bias` for all rows; `x` is `[N, bias.len()]`.
pub fn forward(threads: &Threads, x: &mut [f32], bias: &[f32]) {
    threads.for_each_chunk(x, bias.len() * TASK_ROWS, |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    });
}

/// `dbias += sum over the rows of dout`, `[N, dbias.len()]`, in order.
pub fn backward(threads: &Threads, dbias: &mut [f32], dout: &[f32]) {
    sum_rows(threads, dbias, dout);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn biases_go_to_every_row_and_their_derivatives_come_from_every_row() {
        for count in [1, 3] {
            let threads = Threads::new(count);
            let (mut x, mut dbias) = (vec![1.0; 70 * 3], vec![0.5; 3]);
            forward(&threads, &mut x, &[1.0, 2.0, 3.0]);
            assert_eq!(x[207..], [2.0, 3.0, 4.0]);
            backward(&threads, &mut dbias, &x);
            assert_eq!(dbias, [140.5, 210.5, 280.5]);
        }
    }
}
