//! What is learnt from a micro-batch: how much each of its targets counts.
//!
//! ```text
//! forward pass -> log-probabilities of the targets, if the objective asks for them -> weights of the targets
//!              -> chunked loss and its derivative -> backward pass
//! ```

use std::ops::AddAssign;

use openelm_kernels::cross_entropy::RowWeights;
use serde::Serialize;

use crate::data::Batch;

/// A loss made of the log-probabilities of the targets.
///
/// The derivative of the loss by each target's log-probability is all that a backward pass needs. Where it is known
/// beforehand, as for next-token prediction, it is said at once; where it depends on how probable whole sequences are, as for
/// preferences, their log-probabilities are computed first, from the same forward pass.
pub trait Objective {
    /// What a micro-batch is.
    type Batch;

    /// The sequences of `batch`, which the network reads.
    fn sequences<'b>(&self, batch: &'b Self::Batch) -> &'b Batch;

    /// What the mean loss is taken over: how many targets `batch` has that count, or pairs.
    fn amount(&self, batch: &Self::Batch) -> f64;

    /// How much each target of `batch` counts. `log_probabilities` computes the logarithm of each target's probability, in
    /// nats, in the order of [`Batch::targets`].
    fn weigh(&self, batch: &Self::Batch, log_probabilities: &mut dyn FnMut() -> Vec<f64>) -> Weighed;

    /// Names of the numbers beside the loss whose means are worth logging, such as the share of pairs that are told apart.
    fn metrics(&self) -> &'static [&'static str] {
        &[]
    }

    /// Weight of the squared logarithm of the softmax denominator (z-loss) beside the cross-entropy of each target.
    fn z_weight(&self) -> f32 {
        0.0
    }
}

/// How much the targets of a micro-batch count.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighed {
    /// The derivative of the summed loss by the cross-entropy of each target, `[sequences, time]`; one number where all
    /// count alike. A target of weight 0 does not count.
    pub weights: TargetWeights,
    /// The summed loss, where it is not the weighted sum of the cross-entropies.
    pub loss: Option<f64>,
    /// Sums of [`Objective::metrics`], in their order; the means are taken over [`Objective::amount`].
    pub metrics: Vec<f64>,
}

impl Weighed {
    /// Targets whose weighted cross-entropies are the loss, and nothing else to tell.
    pub fn targets(weights: TargetWeights) -> Self {
        Self { weights, loss: None, metrics: Vec::new() }
    }
}

/// Weights of the targets of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetWeights {
    /// All alike.
    All(f32),
    /// One for each.
    Each(Vec<f32>),
}

impl TargetWeights {
    /// The same, borrowed.
    pub(crate) fn rows(&self) -> RowWeights<'_> {
        match self {
            Self::All(weight) => RowWeights::All(*weight),
            Self::Each(weights) => RowWeights::Each(weights),
        }
    }
}

/// The loss of micro-batches, in sums that can be added up.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Loss {
    /// Sum of the losses, without z-loss; in nats for next-token prediction.
    pub sum: f64,
    /// What the mean is taken over: targets that count, or pairs.
    pub amount: f64,
    /// Targets that count.
    pub tokens: usize,
    /// Weighted sum of the squared logarithms of the softmax denominators (z-loss); 0 where it was not computed.
    pub squared_log_partition: f64,
    /// Sums of [`Objective::metrics`].
    pub metrics: Vec<f64>,
}

impl Loss {
    /// The mean loss; no number where nothing counts.
    pub fn mean(&self) -> f64 {
        self.sum / self.amount
    }

    /// All of it as numbers, for other ranks.
    pub(crate) fn numbers(&self) -> Vec<f64> {
        let Self { sum, amount, tokens, squared_log_partition, metrics } = self;
        [&[*sum, *amount, *tokens as f64, *squared_log_partition], &metrics[..]].concat()
    }

    /// What [`Loss::numbers`] gave.
    pub(crate) fn from_numbers(numbers: &[f64]) -> Self {
        let [sum, amount, tokens, squared_log_partition, ref metrics @ ..] = *numbers else { return Self::default() };
        Self { sum, amount, tokens: tokens as usize, squared_log_partition, metrics: metrics.to_vec() }
    }
}

impl AddAssign<&Loss> for Loss {
    fn add_assign(&mut self, other: &Loss) {
        self.sum += other.sum;
        self.amount += other.amount;
        self.tokens += other.tokens;
        self.squared_log_partition += other.squared_log_partition;
        self.metrics.resize(other.metrics.len(), 0.0);
        self.metrics.iter_mut().zip(&other.metrics).for_each(|(sum, other)| *sum += other);
    }
}

/// The next token, after every token.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NextToken {
    /// Targets with this id do not count.
    pub ignore: Option<u32>,
    /// Weight of the z-loss.
    pub z_weight: f32,
}

impl Objective for NextToken {
    type Batch = Batch;

    fn sequences<'b>(&self, batch: &'b Batch) -> &'b Batch {
        batch
    }

    fn amount(&self, batch: &Batch) -> f64 {
        batch.targets.iter().filter(|&&id| Some(id) != self.ignore).count() as f64
    }

    fn weigh(&self, batch: &Batch, _: &mut dyn FnMut() -> Vec<f64>) -> Weighed {
        let weights = match self.ignore {
            None => TargetWeights::All(1.0),
            Some(ignore) => {
                TargetWeights::Each(batch.targets.iter().map(|&id| f32::from(u8::from(id != ignore))).collect())
            }
        };
        Weighed::targets(weights)
    }

    fn z_weight(&self) -> f32 {
        self.z_weight
    }
}
