//! The gradients of an update, put together from micro-batches and ranks.
//!
//! An update's micro-batches are cut into *shares*. Within a share gradients are added up one after another in one buffer;
//! the shares' sums are added in a binary tree, first those of a rank, then those of the ranks. The result is therefore the
//! same to the bit on any number of ranks with the same number of shares. A rank with several shares keeps one more buffer
//! for each level of its tree.
//!
//! While the backward pass of a rank's last micro-batch goes down the layers, a thread reduces the gradients of those
//! above, bucket by bucket.

use std::ops::Range;
use std::sync::{Arc, mpsc};

use openelm_kernels::Threads;
use openelm_kernels::cross_entropy::LossSums;
use openelm_kernels::gradient_norm::{self, BLOCK};

use crate::collective::{Alone, Collective, CollectiveError, add, share};
use crate::data::Batch;
use crate::network::{LossOptions, Network};
use crate::parameters::Parameters;

/// Most numbers that are reduced at once: 16 MiB, small enough to be on its way while more is computed, large enough that
/// each of a hundred ranks still gets whole blocks.
const BUCKET: usize = 1024 * BLOCK;

/// How the micro-batches of one step are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulation {
    /// The loss is the mean over all counted tokens of the step.
    Mean,
    /// CoreNet's: each micro-batch has its own mean, and the gradients are summed, not averaged.
    SumOfMeans,
}

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

    /// Fills `gradients` from this rank's `micro_batches` and those of all others; gives the loss of each micro-batch of
    /// the update, in order. If the moments are sharded, only what this rank answers for is filled.
    pub fn gradients(
        &mut self,
        network: &mut Network,
        parameters: &Parameters,
        gradients: &mut Parameters,
        micro_batches: &[Batch],
        loss: LossOptions,
        accumulation: Accumulation,
        threads: &Threads,
    ) -> Result<Vec<LossSums>, CollectiveError> {
        let counted = |batch: &Batch| batch.targets.iter().filter(|&&id| Some(id) != loss.ignore).count();
        let mine: usize = micro_batches.iter().map(counted).sum();
        let total = self.ranks.gather(&[mine as f64])?.iter().sum::<f64>();
        // A batch of nothing but padding has no loss.
        let scale = |batch: &Batch| match accumulation {
            Accumulation::Mean => 1.0 / total.max(1.0) as f32,
            Accumulation::SumOfMeans => 1.0 / counted(batch).max(1) as f32,
        };
        let shares = 1 << self.waiting.len();
        let mut sums = Vec::with_capacity(3 * micro_batches.len());
        let mut note =
            |loss: LossSums| sums.extend([loss.cross_entropy, loss.squared_log_partition, loss.valid as f64]);
        let even = !micro_batches.is_empty() && micro_batches.len().is_multiple_of(shares);
        assert!(even, "{} micro-batches for {shares} shares", micro_batches.len());
        for (i, share) in micro_batches.chunks(micro_batches.len() / shares).enumerate() {
            threads.for_each_chunk(gradients.values_mut(), BUCKET, |_, gradients| gradients.fill(0.0));
            let Some((last, before)) = share.split_last() else { continue };
            for batch in before {
                note(network.gradients(parameters, gradients, batch, loss, scale(batch), &mut |_, _| ()));
            }
            if i + 1 < shares {
                note(network.gradients(parameters, gradients, last, loss, scale(last), &mut |_, _| ()));
                self.carry(i, gradients.values_mut(), threads);
            } else {
                note(self.last(network, parameters, gradients, last, loss, scale(last), threads)?);
            }
        }
        let sums = self.ranks.gather(&sums)?;
        let sums = sums.chunks_exact(3);
        Ok(sums
            .map(|sum| LossSums { cross_entropy: sum[0], squared_log_partition: sum[1], valid: sum[2] as usize })
            .collect())
    }

    /// Adds the waiting sums to that of the share `i`, as far as they are its neighbours, and lets the result wait.
    fn carry(&mut self, i: usize, sum: &mut [f32], threads: &Threads) {
        let level = i.trailing_ones() as usize;
        for waiting in &self.waiting[..level] {
            add_all(threads, sum, waiting);
        }
        self.waiting[level].copy_from_slice(sum);
    }

    /// The rank's last micro-batch: what is complete is reduced while the layers below are still at work.
    fn last(
        &self,
        network: &mut Network,
        parameters: &Parameters,
        gradients: &mut Parameters,
        batch: &Batch,
        loss: LossOptions,
        scale: f32,
        threads: &Threads,
    ) -> Result<LossSums, CollectiveError> {
        let add_waiting = |start: usize, segment: &mut [f32]| {
            for waiting in &self.waiting {
                add_all(threads, segment, &waiting[start..start + segment.len()]);
            }
        };
        if self.ranks.ranks() == 1 {
            let mut ready = |start: usize, segment: &mut [f32]| add_waiting(start, segment);
            return Ok(network.gradients(parameters, gradients, batch, loss, scale, &mut ready));
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
            let sums = network.gradients(parameters, gradients, batch, loss, scale, &mut |start, segment| {
                add_waiting(start, segment);
                for bucket in segment.chunks_mut(BUCKET) {
                    // If nobody listens any more, the thread has an error, which is seen below.
                    let _ = sender.send(bucket);
                }
            });
            drop(sender);
            reducer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok(sums)
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
