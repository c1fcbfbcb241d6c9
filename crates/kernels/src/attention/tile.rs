//! The keys and values of some positions of one head, laid out for the kernels, and what rows of queries do with them.
//!
//! Keys lie transposed, so that a vector holds the scores of neighbouring positions and no sum over lanes is needed:
//!
//! ```text
//! scores[row, key] = sum over i of q[row, i] keys[i, key]        sums[row, i] += sum over key of p[row, key] values[key, i]
//! ```

use std::ops::Range;

use super::product::{ROWS, Strided, multiply_rows};
use super::running::Running;
use super::{KEYS, padded};
use crate::cache_line::{CacheLine, reserve};
use crate::lanes::{Element, LANES, Lanes};

/// Vectors in a row of scores.
const KEY_VECTORS: usize = KEYS / LANES;

/// The positions `first..first + KEYS` of one head; what lies beyond the last key is never weighed.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a, T> {
    /// `[head_dim, KEYS]`.
    pub(super) keys: &'a [T],
    /// `[KEYS, padded(head_dim)]`.
    pub(super) values: &'a [T],
    /// What the keys and the values of each position are to be multiplied by, if not by 1.
    pub(super) scales: Option<[&'a [f32; KEYS]; 2]>,
}

impl<'a, T: Element> Tile<'a, T> {
    /// The tile in `f32`, in `buffer`. The scales stay apart, so that scores are those of the tile as it is.
    #[inline(always)]
    pub(super) fn widened<L: Lanes>(self, lanes: L, buffer: &'a mut Vec<CacheLine>) -> Tile<'a, f32> {
        let (keys, values) = reserve(buffer, self.keys.len() + self.values.len()).split_at_mut(self.keys.len());
        for (wide, narrow) in [(&mut *keys, self.keys), (&mut *values, self.values)] {
            for (wide, narrow) in wide.as_chunks_mut::<LANES>().0.iter_mut().zip(narrow.as_chunks::<LANES>().0) {
                *wide = lanes.to_array(T::load(lanes, narrow));
            }
        }
        Tile { keys, values, scales: self.scales }
    }

    /// Takes the tile into what `running` carries for each row of `q`, `[rows, head_dim]`, from row `first` on; row `r` sees
    /// the keys `seen(r)` of the tile.
    #[inline(always)]
    pub(super) fn attend<L: Lanes>(
        self,
        lanes: L,
        running: &mut Running<'_>,
        q: &[f32],
        first: usize,
        seen: impl Fn(usize) -> Range<usize>,
    ) {
        let rows = running.rows();
        let whole = first + (rows - first) / ROWS * ROWS;
        for row in (first..whole).step_by(ROWS) {
            self.rows::<L, ROWS>(lanes, running, q, row, &seen);
        }
        for row in whole..rows {
            self.rows::<L, 1>(lanes, running, q, row, &seen);
        }
    }

    #[inline(always)]
    fn rows<L: Lanes, const R: usize>(
        self,
        lanes: L,
        running: &mut Running<'_>,
        q: &[f32],
        first: usize,
        seen: &impl Fn(usize) -> Range<usize>,
    ) {
        let d = self.keys.len() / KEYS;
        let mut scores = [[0.0; KEYS]; R];
        let lines = scores.as_flattened_mut().as_chunks_mut().0;
        let keys = self.keys.as_chunks().0;
        multiply_rows::<L, T, false, R>(lanes, lines, first, Strided::rows(q, d), keys, KEY_VECTORS);
        if let Some([scales, _]) = self.scales {
            scale_rows(&mut scores, scales);
        }
        for (r, scores) in scores.iter_mut().enumerate() {
            running.soften(first + r, scores, seen(first + r));
        }
        if let Some([_, scales]) = self.scales {
            scale_rows(&mut scores, scales);
        }
        let keys = (first..first + R).map(|row| seen(row).end).max().unwrap_or(0);
        let sums = running.sums(first).as_chunks_mut::<LANES>().0;
        let width = padded(d);
        let values = self.values[..keys * width].as_chunks().0;
        let weights = Strided::rows(scores.as_flattened(), KEYS);
        multiply_rows::<L, T, true, R>(lanes, sums, 0, weights, values, width / LANES);
    }
}

/// Multiplies what belongs to each key by its scale.
#[inline(always)]
fn scale_rows(rows: &mut [[f32; KEYS]], scales: &[f32; KEYS]) {
    for row in rows {
        for (x, scale) in row.iter_mut().zip(scales) {
            *x *= scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;
    use crate::check::values;
    use crate::lanes::{Kernel, with_each};

    #[derive(Clone)]
    struct Attend<'a, T> {
        tile: Tile<'a, T>,
        q: &'a [f32],
        rows: usize,
    }

    impl<T: Element> Kernel for Attend<'_, T> {
        type Output = Vec<u32>;

        /// With the tile as it is and with the widened one.
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Vec<u32> {
            let d = self.q.len() / self.rows;
            let mut gathered = [vec![0.0; Running::length(self.rows, d)], vec![0.0; Running::length(self.rows, d)]];
            let mut buffer = Vec::new();
            let seen = |row| 0..KEYS - self.rows + row;
            let [narrow, wide] = &mut gathered;
            self.tile.attend(lanes, &mut Running::start(narrow, self.rows), self.q, 0, seen);
            let tile = self.tile.widened(lanes, &mut buffer);
            tile.attend(lanes, &mut Running::start(wide, self.rows), self.q, 0, seen);
            let [narrow, wide] = gathered.map(|sums| sums.into_iter().map(f32::to_bits).collect::<Vec<u32>>());
            assert_eq!(narrow, wide, "the widened tile gives other bits");
            narrow
        }
    }

    fn assert_alike<T: Element>(from: impl Fn(f32) -> T + Copy, scales: Option<[&[f32; KEYS]; 2]>) {
        for d in [7, 16, 80] {
            let keys: Vec<T> = values(d * KEYS, 0.1).into_iter().map(from).collect();
            let values_of: Vec<T> = values(KEYS * padded(d), 0.2).into_iter().map(from).collect();
            for rows in 1..10 {
                let q = values(rows * d, 0.3);
                let tile = Tile { keys: &keys, values: &values_of, scales };
                let outputs = with_each(&Attend { tile, q: &q, rows });
                for (name, output) in &outputs[1..] {
                    assert_eq!(output, &outputs[0].1, "{name}, {rows} rows of {d}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_plain_code() {
        let scales: [f32; KEYS] = std::array::from_fn(|i| (i + 1) as f32 / 5000.0);
        assert_alike(|x| x, None);
        assert_alike(f16::from_f32, None);
        assert_alike(|x| (x * 127.0) as i8, Some([&scales, &scales]));
    }
}
