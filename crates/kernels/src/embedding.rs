//! Embedding tables: rows picked by token id.

use crate::{Matrix, Threads};

/// `out[n] = table[ids[n]]`; `out` is `[ids.len(), dim]`, `table` `[vocabulary, dim]`, widened where it is of 16 bits.
///
/// # Panics
/// If an id is not below the vocabulary's size: callers check ids that come from outside.
pub fn forward(threads: &Threads, out: &mut [f32], ids: &[u32], table: Matrix<'_>, dim: usize) {
    assert_eq!(out.len(), ids.len() * dim, "out is not [{}, {dim}]", ids.len());
    threads.for_each_chunk(out, dim * 64, |chunk, out| {
        let mut buffer = vec![0.0; if matches!(table, Matrix::F32(_)) { 0 } else { dim }];
        for (out, &id) in out.chunks_exact_mut(dim).zip(&ids[chunk * 64..]) {
            out.copy_from_slice(table.widened(id as usize * dim, dim, &mut buffer));
        }
    });
}

/// `dtable[ids[n]] += dout[n]` for all `n` in order, except those with `ids[n] == skip` (PyTorch's `padding_idx`).
///
/// Rows are shared out by id, so that no two threads meet in one row and each row is summed in order.
pub fn backward(threads: &Threads, dtable: &mut [f32], ids: &[u32], dout: &[f32], dim: usize, skip: Option<u32>) {
    assert_eq!(dout.len(), ids.len() * dim, "dout is not [{}, {dim}]", ids.len());
    const ROWS: usize = 512;
    threads.for_each_chunk(dtable, dim * ROWS, |chunk, dtable| {
        let rows = chunk * ROWS..chunk * ROWS + dtable.len() / dim;
        for (&id, dout) in ids.iter().zip(dout.chunks_exact(dim)) {
            if rows.contains(&(id as usize)) && Some(id) != skip {
                let target = &mut dtable[(id as usize - rows.start) * dim..][..dim];
                target.iter_mut().zip(dout).for_each(|(target, x)| *target += x);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn rows_are_picked_and_their_gradients_added_in_order() {
        let table: Vec<f32> = (0..1500 * 3).map(|i| i as f32).collect();
        let ids = [7, 1499, 0, 7, 900];
        for count in [1, 3] {
            let threads = Threads::new(count);
            let mut out = vec![0.0; 15];
            forward(&threads, &mut out, &ids, Matrix::F32(&table), 3);
            assert_eq!(out[..6], [21.0, 22.0, 23.0, 4497.0, 4498.0, 4499.0]);
            let mut gradient = vec![1.0; table.len()];
            let dout: Vec<f32> = (0..15).map(|i| i as f32).collect();
            backward(&threads, &mut gradient, &ids, &dout, 3, Some(900));
            assert_eq!(gradient[21..24], [1.0 + 0.0 + 9.0, 1.0 + 1.0 + 10.0, 1.0 + 2.0 + 11.0]);
            assert_eq!(gradient[0..3], [7.0, 8.0, 9.0]);
            assert_eq!(gradient[2700..2703], [1.0; 3]);
        }
    }

    #[test]
    fn sixteen_bit_rows_are_widened() {
        let table: Vec<bf16> = (0..8).map(|i| bf16::from_f32(i as f32 / 4.0)).collect();
        let mut out = vec![0.0; 2];
        forward(&Threads::single(), &mut out, &[3], Matrix::BF16(&table), 2);
        assert_eq!(out, [1.5, 1.75]);
    }
}
