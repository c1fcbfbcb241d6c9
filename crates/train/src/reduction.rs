//! The gradients of an update, put together from micro-batches and ranks.
//!
//! An update's micro-batches are cut into *shares*. Within a share gradients are added up one after another in one buffer, which the
//! first of them overwrites; the shares' sums are added in a binary tree, first those of a rank, then those of the ranks. The result
//! is therefore the same to the bit on any number of ranks with the same number of shares. A rank with several shares keeps one more
//! buffer for each level of its tree.
//!
//! While the backward pass of a rank's last micro-batch goes down the layers, a thread reduces the gradients of those
//! above, bucket by bucket. What computes the gradients is none of this file's business.

use std::ops::Range;
use std::sync::{Arc, mpsc};

use openelm_kernels::Threads;
use openelm_kernels::gradient_norm::{self, BLOCK};

use crate::collective::{Alone, Collective, CollectiveError, add, share};
use crate::parameters::Parameters;

/// Most numbers that are reduced at once: 16 MiB, small enough to be on its way while more is computed, large enough that
/// each of a hundred ranks still gets whole blocks.
const BUCKET: usize = 1024 * BLOCK;

/// How a run is spread over ranks.
#[derive(Clone)]
pub struct Distribution {
    /// All ranks, this one among them.
    pub ranks: Arc<dyn Collective>,
    /// Parts in which an update's micro-batches are summed: a multiple of the number of ranks, by a power of two.
    pub shares: usize,
    /// Whether each rank keeps the moments of a part of the weights only, and updates that part (ZeRO-1).
    pub sharded: bool,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { ranks: Arc::new(Alone), shares: 1, sharded: false }
    }
}

/// A part of the weights that one rank updates, within one tensor.
pub(crate) struct Piece {
    /// Where it lies among all weights.
    pub weights: Range<usize>,
    /// Where its moments lie among those of this rank.
    pub moments: Range<usize>,
    /// Whether the tensor is a matrix, which decays.
    pub matrix: bool,
}

/// Puts gradients together, and knows which rank answers for what.
pub(crate) struct Reduction {
    ranks: Arc<dyn Collective>,
    sharded: bool,
    /// Sums of shares that wait for their neighbours; level `i` holds that of `2^i` shares.
    waiting: Vec<Vec<f32>>,
    /// What is reduced at once: ranges of all weights, in order.
    buckets: Vec<Range<usize>>,
}

impl Reduction {
    pub fn new(parameters: &Parameters, distribution: Distribution) -> Self {
        let Distribution { ranks, shares, sharded } = distribution;
        let tree = shares.is_multiple_of(ranks.ranks()) && (shares / ranks.ranks()).is_power_of_two();
        assert!(tree, "{shares} shares for {} ranks", ranks.ranks());
        let mut buckets = Vec::new();
        for segment in parameters.segments() {
            let starts = segment.clone().step_by(BUCKET);
            buckets.extend(starts.map(|start| start..(start + BUCKET).min(segment.end)));
        }
        let levels = (shares / ranks.ranks()).ilog2() as usize;
        let waiting = (0..levels).map(|_| vec![0.0; parameters.values().len()]).collect();
        Self { sharded: sharded && ranks.ranks() > 1, ranks, waiting, buckets }
    }

    /// All ranks.
    pub fn ranks(&self) -> &dyn Collective {
        &*self.ranks
    }

    /// What this rank answers for within `bucket`.
    fn owned(&self, bucket: &Range<usize>) -> Range<usize> {
        if !self.sharded {
            return bucket.clone();
        }
        let share = share(bucket.len(), self.ranks.rank(), self.ranks.ranks());
        bucket.start + share.start..bucket.start + share.end
    }

    /// What this rank updates, in order; the moments follow each other without gaps.
    pub fn pieces(&self, parameters: &Parameters) -> Vec<Piece> {
        let (mut pieces, mut moments, mut tensor) = (Vec::new(), 0, 0..0);
        let mut owned =
            self.buckets.iter().map(|bucket| self.owned(bucket)).filter(|range| !range.is_empty()).peekable();
        for (spec, values) in parameters.tensors() {
            tensor = tensor.end..tensor.end + values.len();
            while let Some(range) = owned.peek() {
                let weights = range.start.max(tensor.start)..range.end.min(tensor.end);
                if !weights.is_empty() {
                    pieces.push(Piece {
                        moments: moments..moments + weights.len(),
                        matrix: spec.shape.len() > 1,
                        weights: weights.clone(),
                    });
                    moments += weights.len();
                }
                if range.end > tensor.end {
                    break;
                }
                owned.next();
            }
        }
        pieces
    }

    /// Shares of this rank, each of equally many micro-batches.
    pub fn shares(&self) -> usize {
        1 << self.waiting.len()
    }

    /// Takes in the `sum` of this rank's share `i`, which is not the last: adds the waiting sums as far as they are its
    /// neighbours, and lets the result wait. The next share begins anew in `sum`.
    pub fn carry(&mut self, threads: &Threads, i: usize, sum: &mut [f32]) {
        let level = i.trailing_ones() as usize;
        for waiting in &self.waiting[..level] {
            add_all(threads, sum, waiting);
        }
        self.waiting[level].copy_from_slice(sum);
    }

    /// The last of this rank's micro-batches: whatever `pass` says is complete, with its place among all gradients, is summed
    /// over shares and ranks while the rest is still at work. Where the moments are sharded, each rank gets the sums of what
    /// it answers for.
    pub fn complete<'g, T>(
        &self,
        threads: &Threads,
        pass: impl FnOnce(&mut dyn FnMut(usize, &'g mut [f32])) -> T,
    ) -> Result<T, CollectiveError> {
        let add_waiting = |start: usize, segment: &mut [f32]| {
            for waiting in &self.waiting {
                add_all(threads, segment, &waiting[start..start + segment.len()]);
            }
        };
        if self.ranks.ranks() == 1 {
            return Ok(pass(&mut |start, segment| add_waiting(start, segment)));
        }
        let (ranks, sharded) = (&self.ranks, self.sharded);
        std::thread::scope(|scope| {
            let (sender, buckets) = mpsc::channel::<&mut [f32]>();
            let reducer = scope.spawn(move || {
                buckets.into_iter().try_for_each(|bucket| match sharded {
                    true => ranks.reduce_scatter(bucket),
                    false => ranks.all_reduce(bucket),
                })
            });
            let result = pass(&mut |start, segment| {
                add_waiting(start, segment);
                for bucket in segment.chunks_mut(BUCKET) {
                    // If nobody listens any more, the thread has an error, which is seen below.
                    let _ = sender.send(bucket);
                }
            });
            drop(sender);
            reducer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(result)
        })
    }

    /// Global norm of `gradients`.
    pub fn norm(&self, threads: &Threads, gradients: &[f32]) -> Result<f64, CollectiveError> {
        let mut squares = Vec::with_capacity(gradients.len() / BLOCK + self.buckets.len());
        for bucket in &self.buckets {
            let owned = self.owned(bucket);
            let first = squares.len() + (owned.start - bucket.start) / BLOCK;
            squares.resize(squares.len() + bucket.len().div_ceil(BLOCK), 0.0);
            gradient_norm::block_sums(threads, &mut squares[first..], &gradients[owned]);
        }
        if self.sharded {
            // Each block is known to one rank and zero elsewhere: the sum is exact.
            self.ranks.all_reduce(&mut squares)?;
        }
        Ok(gradient_norm::sum(&squares).sqrt())
    }

    /// Makes `values`, of which each rank knows what it answers for, whole on all ranks.
    pub fn gather(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        if self.sharded {
            for bucket in &self.buckets {
                self.ranks.all_gather(&mut values[bucket.clone()])?;
            }
        }
        Ok(())
    }

    /// Brings the sharded `moments` of all ranks together on rank 0, in the order of the weights; elsewhere the result is
    /// empty. All ranks must call it.
    pub fn gather_moments(&self, moments: &[f32]) -> Result<Vec<f32>, CollectiveError> {
        let length = self.buckets.last().filter(|_| self.ranks.rank() == 0).map_or(0, |bucket| bucket.end);
        let (mut whole, mut rest) = (Vec::with_capacity(length), moments);
        for bucket in &self.buckets {
            let owned = self.owned(bucket);
            let (mine, tail) = rest.split_at(owned.len());
            rest = tail;
            let mut values = vec![0.0; bucket.len()];
            values[owned.start - bucket.start..owned.end - bucket.start].copy_from_slice(mine);
            self.ranks.all_gather(&mut values)?;
            if self.ranks.rank() == 0 {
                whole.extend(values);
            }
        }
        Ok(whole)
    }

    /// Whether each rank keeps moments of a part of the weights only.
    pub fn sharded(&self) -> bool {
        self.sharded
    }
}

/// `sum += values`, on all threads.
fn add_all(threads: &Threads, sum: &mut [f32], values: &[f32]) {
    threads.for_each_chunk(sum, BLOCK, |i, sum| add(sum, &values[i * BLOCK..][..sum.len()]));
}
