//! The softmax that is carried along from block to block of keys.

use std::ops::Range;

use super::{KEYS, padded};
use crate::fused::mul_add;
use crate::simd::{exp, exp_sum, maximum};

/// What some rows of queries have gathered from the keys they met so far.
pub(super) struct Running<'a> {
    /// The largest score of each row.
    maxima: &'a mut [f32],
    /// The sum of the exponentials of each row, relative to its maximum.
    totals: &'a mut [f32],
    /// The values weighed by the exponentials, `[rows, padded(head_dim)]`.
    sums: &'a mut [f32],
}

impl<'a> Running<'a> {
    /// Elements that `rows` rows need.
    pub(super) fn length(rows: usize, head_dim: usize) -> usize {
        rows * (2 + padded(head_dim))
    }

    /// What lies in `buffer`, of which `rows` rows take up all.
    pub(super) fn view(buffer: &'a mut [f32], rows: usize) -> Self {
        let (maxima, rest) = buffer.split_at_mut(rows);
        let (totals, sums) = rest.split_at_mut(rows);
        Self { maxima, totals, sums }
    }

    /// Rows that have met no key yet.
    pub(super) fn start(buffer: &'a mut [f32], rows: usize) -> Self {
        let running = Self::view(buffer, rows);
        running.maxima.fill(f32::NEG_INFINITY);
        running.totals.fill(0.0);
        running.sums.fill(0.0);
        running
    }

    pub(super) fn rows(&self) -> usize {
        self.maxima.len()
    }

    /// The sums from row `first` on.
    #[inline(always)]
    pub(super) fn sums(&mut self, first: usize) -> &mut [f32] {
        let width = self.sums.len() / self.maxima.len();
        &mut self.sums[first * width..]
    }

    /// Replaces the scores `seen` of a row by their exponentials relative to the new maximum and the others by zero;
    /// rescales what was summed so far.
    #[inline(always)]
    pub(super) fn soften(&mut self, row: usize, scores: &mut [f32; KEYS], seen: Range<usize>) {
        // The compiler unrolls the common case.
        if seen == (0..KEYS) {
            self.add(row, scores);
        } else {
            scores[..seen.start].fill(0.0);
            scores[seen.end..].fill(0.0);
            if !seen.is_empty() {
                self.add(row, &mut scores[seen]);
            }
        }
    }

    #[inline(always)]
    fn add(&mut self, row: usize, scores: &mut [f32]) {
        let largest = maximum(scores);
        if largest > self.maxima[row] {
            self.rescale(row, largest);
        }
        self.totals[row] += exp_sum(scores, self.maxima[row]);
    }

    /// Makes the sums of a row relative to a larger maximum.
    #[inline(always)]
    fn rescale(&mut self, row: usize, maximum: f32) {
        if self.totals[row] > 0.0 {
            let factor = exp(self.maxima[row] - maximum);
            let width = self.sums.len() / self.maxima.len();
            self.totals[row] *= factor;
            for x in &mut self.sums[row * width..][..width] {
                *x *= factor;
            }
        }
        self.maxima[row] = maximum;
    }

    /// Takes in what the same rows have gathered from other keys.
    #[inline(always)]
    pub(super) fn merge(&mut self, other: &Running<'_>) {
        let width = self.sums.len() / self.maxima.len();
        for row in 0..self.rows() {
            if other.totals[row] == 0.0 {
                continue;
            }
            if other.maxima[row] > self.maxima[row] {
                self.rescale(row, other.maxima[row]);
            }
            let factor = exp(other.maxima[row] - self.maxima[row]);
            self.totals[row] += factor * other.totals[row];
            let (sums, others) = (&mut self.sums[row * width..][..width], &other.sums[row * width..][..width]);
            // A loop, as around this: a closure may be compiled apart, for processors without fused multiply-adds.
            for (sum, &x) in sums.iter_mut().zip(others) {
                *sum = mul_add(factor, x, *sum);
            }
        }
    }

    /// Writes the quotients of sums and totals of a row.
    #[inline(always)]
    pub(super) fn finish(&self, row: usize, out: &mut [f32]) {
        let width = self.sums.len() / self.maxima.len();
        let factor = 1.0 / self.totals[row];
        out.iter_mut().zip(&self.sums[row * width..]).for_each(|(out, sum)| *out = sum * factor);
    }

    /// The logarithm of the softmax's denominator of a row.
    pub(super) fn log_sum(&self, row: usize) -> f32 {
        self.maxima[row] + self.totals[row].ln()
    }
}
