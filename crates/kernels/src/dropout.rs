//! Dropout (Srivastava et al. 2014): some inputs are taken for zero, the others scaled up so that the mean stays.
//!
//! Which ones, is a function of a key, the row and the column alone: a pass that is made again, on any number of threads, drops
//! the same.

use crate::Threads;

/// Rows in a task.
const TASK_ROWS: usize = 32;
/// Columns that one random number of 64 bits serves, 16 bits each.
const SHARED: usize = 4;
/// What 16 bits can be.
const STEPS: u32 = 1 << 16;
/// The fractional part of the golden ratio, whose multiples SplitMix64 (Steele, Lea and Flood 2014) mixes.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which inputs are dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Share of the inputs that are dropped, from 0 to below 1; it is rounded to a multiple of 2^-16.
    pub probability: f32,
    /// What the choice depends on.
    pub key: u64,
}

impl Dropout {
    /// The same share, chosen anew for each `number`.
    #[must_use]
    pub fn of(self, number: u64) -> Self {
        Self { key: mix(self.key ^ mix(number.wrapping_add(GOLDEN))), ..self }
    }

    /// Below which 16 random bits drop an input, and what the others are multiplied by.
    fn threshold_and_scale(self) -> (u32, f32) {
        let threshold = ((self.probability * STEPS as f32) as u32).min(STEPS - 1);
        (threshold, STEPS as f32 / (STEPS - threshold) as f32)
    }
}

/// The finaliser of SplitMix64.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `out[n, i] = 0` or `x[n, i] / (1 - probability)`; `x` and `out` are `[N, width]`.
pub fn forward(threads: &Threads, out: &mut [f32], x: &[f32], width: usize, dropout: Dropout) {
    assert!(out.len() == x.len() && x.len().is_multiple_of(width), "x or out is not [N, {width}]");
    each_row(threads, out, x, width, dropout, |out, x, factor| *out = x * factor);
}

/// Adds the derivatives of [`forward`] by `x` to `dx`, from those by its output, `dout`; both `[N, width]`.
pub fn backward(threads: &Threads, dx: &mut [f32], dout: &[f32], width: usize, dropout: Dropout) {
    assert!(dx.len() == dout.len() && dx.len().is_multiple_of(width), "dx or dout is not [N, {width}]");
    each_row(threads, dx, dout, width, dropout, |dx, d, factor| *dx += d * factor);
}

/// Calls `task` with each element of `out` and `x` and the factor of that input.
fn each_row(
    threads: &Threads,
    out: &mut [f32],
    x: &[f32],
    width: usize,
    dropout: Dropout,
    task: impl Fn(&mut f32, f32, f32) + Sync,
) {
    let (threshold, scale) = dropout.threshold_and_scale();
    threads.for_each_chunk(out, width * TASK_ROWS, |number, out| {
        let first = number * TASK_ROWS;
        let rows = out.chunks_mut(width).zip(x[first * width..].chunks(width));
        for (row, (out, x)) in rows.enumerate() {
            let start = dropout.of((first + row) as u64).key;
            for (group, (out, x)) in out.chunks_mut(SHARED).zip(x.chunks(SHARED)).enumerate() {
                let mut bits = mix(start.wrapping_add((group as u64).wrapping_mul(GOLDEN)));
                for (out, &x) in out.iter_mut().zip(x) {
                    let factor = if (bits as u32 & (STEPS - 1)) < threshold { 0.0 } else { scale };
                    bits >>= 16;
                    task(out, x, factor);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_dropped_is_the_one_asked_for_and_the_mean_stays() {
        for probability in [0.0, 0.05, 0.1, 0.5, 0.9] {
            let (width, rows) = (1003, 500);
            let mut out = vec![7.0; width * rows];
            let dropout = Dropout { probability, key: 42 };
            forward(&Threads::new(2), &mut out, &vec![1.0; width * rows], width, dropout);
            let count = out.len() as f32;
            let dropped = out.iter().filter(|&&x| x == 0.0).count() as f32 / count;
            let mean = (out.iter().copied().map(f64::from).sum::<f64>() / out.len() as f64) as f32;
            // Four standard deviations of so many draws.
            let allowed = 4.0 * (probability * (1.0 - probability) / count).sqrt() + 1e-4;
            assert!((dropped - probability).abs() <= allowed, "{dropped} dropped instead of {probability}");
            assert!((mean - 1.0).abs() <= allowed / (1.0 - probability), "a mean of {mean} with {probability}");
        }
    }

    #[test]
    fn the_choice_depends_on_key_row_and_column_and_on_nothing_else() {
        let (width, rows) = (50, 77);
        let x: Vec<f32> = (0..width * rows).map(|i| 1.0 + i as f32).collect();
        let dropped = |threads: usize, key: u64| {
            let mut out = vec![0.0; x.len()];
            forward(&Threads::new(threads), &mut out, &x, width, Dropout { probability: 0.3, key });
            out
        };
        assert_eq!(dropped(1, 5), dropped(3, 5));
        let (a, b) = (dropped(1, 5), dropped(1, 6));
        let same = a.iter().zip(&b).filter(|(a, b)| (**a == 0.0) == (**b == 0.0)).count() as f64 / a.len() as f64;
        // 0.7^2 + 0.3^2 of what is independent.
        assert!((same - 0.58).abs() < 0.04, "{same} of the choices are the same with another key");
        let first: Vec<bool> = a[..width].iter().map(|&x| x == 0.0).collect();
        assert!(a.chunks(width).skip(1).all(|row| row.iter().map(|&x| x == 0.0).ne(first.iter().copied())));
    }

    #[test]
    fn derivatives_pass_where_inputs_did() {
        let (width, threads) = (30, Threads::single());
        let dropout = Dropout { probability: 0.4, key: 9 };
        let ones = vec![1.0; 4 * width];
        let (mut out, mut dx) = (vec![0.0; 4 * width], vec![2.0; 4 * width]);
        forward(&threads, &mut out, &ones, width, dropout);
        backward(&threads, &mut dx, &ones, width, dropout);
        assert!(out.iter().zip(&dx).all(|(out, dx)| *dx == 2.0 + out));
    }
}
