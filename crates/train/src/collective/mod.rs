//! Several processes, one training run: what they tell each other.
//!
//! A *rank* is one process of a job (or one thread of a test); ranks are counted from 0. Every operation here is called by
//! all ranks in the same order. Sums over ranks are taken in the fixed order of a binary tree, whatever carries the
//! numbers, so that a result never depends on timing.

mod local;
#[cfg(feature = "mpi")]
mod mpi;

use std::ops::Range;

use openelm_kernels::gradient_norm::BLOCK;

pub use local::Local;
#[cfg(feature = "mpi")]
pub use mpi::{Job, Mpi};

/// The ranks of a job cannot go on together.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// A rank is gone.
    #[error("rank {rank} ended before the others; the same command goes on from the newest checkpoint")]
    Lost {
        /// The rank that is missing.
        rank: usize,
    },
}

/// What ranks can do together. Each operation waits until it has what it needs of the others.
///
/// Numbers that are summed or spread over the ranks are cut as [`share`] says.
pub trait Collective: Send + Sync {
    /// The number of this rank.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn ranks(&self) -> usize;

    /// Waits for all ranks.
    ///
    /// # Errors
    /// If a rank is gone; this holds for every operation.
    fn barrier(&self) -> Result<(), CollectiveError>;

    /// Makes `bytes` what they are on rank 0.
    ///
    /// # Errors
    /// If a rank is gone.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<(), CollectiveError>;

    /// The `values` of all ranks, in order; each rank brings equally many.
    ///
    /// # Errors
    /// If a rank is gone.
    fn gather(&self, values: &[f64]) -> Result<Vec<f64>, CollectiveError>;

    /// Whether `here` is true on any rank.
    ///
    /// # Errors
    /// If a rank is gone.
    fn any(&self, here: bool) -> Result<bool, CollectiveError> {
        Ok(self.gather(&[f64::from(u8::from(here))])?.contains(&1.0))
    }

    /// Sends each rank its share of `values`; gives what all ranks sent here, in order.
    ///
    /// # Errors
    /// If a rank is gone.
    fn exchange(&self, values: &[f32]) -> Result<Vec<f32>, CollectiveError>;

    /// Fills `values`, of which each rank knows its share.
    ///
    /// # Errors
    /// If a rank is gone.
    fn all_gather(&self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// Makes this rank's share of `values` the sum over all ranks; the rest is left as it is. The sum is that of a binary
    /// tree: `((0 + 1) + (2 + 3)) + ...`.
    ///
    /// # Errors
    /// If a rank is gone.
    fn reduce_scatter(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        if self.ranks() == 1 {
            return Ok(());
        }
        let mut sent = self.exchange(values)?;
        let mine = share(values.len(), self.rank(), self.ranks());
        let mine = &mut values[mine];
        if !mine.is_empty() {
            sum_in_order(&mut sent, mine.len());
            mine.copy_from_slice(&sent[..mine.len()]);
        }
        Ok(())
    }

    /// Makes `values` the sum over all ranks. Each rank sends and receives about twice their size, as in a ring.
    ///
    /// # Errors
    /// If a rank is gone.
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.reduce_scatter(values)?;
        self.all_gather(values)
    }
}

/// The part of `length` numbers that `rank` of `ranks` answers for: contiguous, in the order of ranks, and cut only at
/// multiples of the gradient norm's [`BLOCK`], so that every block of squares is summed by one rank.
pub fn share(length: usize, rank: usize, ranks: usize) -> Range<usize> {
    let each = length.div_ceil(BLOCK).div_ceil(ranks) * BLOCK;
    (rank * each).min(length)..((rank + 1) * each).min(length)
}

/// Adds up the parts of `length` numbers each that lie one after another in `parts`; the sum takes the place of the first.
fn sum_in_order(parts: &mut [f32], length: usize) {
    let mut stride = length;
    while stride < parts.len() {
        for pair in parts.chunks_mut(2 * stride) {
            if pair.len() > stride {
                let (left, right) = pair.split_at_mut(stride);
                add(&mut left[..length], &right[..length]);
            }
        }
        stride *= 2;
    }
}

/// `sum += values`.
pub(crate) fn add(sum: &mut [f32], values: &[f32]) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// A rank without others.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&self, _: &mut Vec<u8>) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn gather(&self, values: &[f64]) -> Result<Vec<f64>, CollectiveError> {
        Ok(values.to_vec())
    }

    fn exchange(&self, values: &[f32]) -> Result<Vec<f32>, CollectiveError> {
        Ok(values.to_vec())
    }

    fn all_gather(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_everything_once_in_whole_blocks() {
        for length in [0, 1, BLOCK, BLOCK + 1, 10 * BLOCK + 7] {
            for ranks in [1, 2, 3, 4, 16] {
                let shares: Vec<_> = (0..ranks).map(|rank| share(length, rank, ranks)).collect();
                assert_eq!((shares[0].start, shares[ranks - 1].end), (0, length));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(shares.iter().all(|share| share.start % BLOCK == 0 || share.start == length));
            }
        }
    }

    #[test]
    fn sums_follow_the_tree() {
        // 1 is lost beside 2^25, so that another order gives another sum.
        let large = 2f32.powi(25);
        let sum = |parts: &[f32]| {
            let mut parts = parts.to_vec();
            sum_in_order(&mut parts, 1);
            parts[0]
        };
        assert_eq!(sum(&[1.0, large, -large, 1.0]), (1.0 + large) + (-large + 1.0));
        assert_eq!(sum(&[large, -large, 1.0]), 1.0);
        assert_eq!(sum(&[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, large]), 4.0 + (2.0 + large));
        let mut pairs = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0];
        sum_in_order(&mut pairs, 2);
        assert_eq!(pairs[..2], [6.0, 60.0]);
    }
}
