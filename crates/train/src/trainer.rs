//! Weights, gradients, moments and the step that ties them together.

use std::borrow::Cow;

use openelm_kernels::adamw::AdamW;
use openelm_kernels::dropout::Dropout;
use openelm_kernels::rounded::Products;
use openelm_kernels::{Threads, gradient_norm};
use openelm_model::ModelConfig;

use crate::collective::CollectiveError;
use crate::data::Batch;
use crate::moments::Moments;
use crate::network::{Keeping, Network};
use crate::objective::{Loss, Objective};
use crate::parameters::Parameters;
use crate::reduction::{Distribution, Piece, Reduction};
use crate::trainable::TrainableModel;

/// Settings of the optimiser that stay the same from step to step; by default CoreNet's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerOptions {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay of matrices (the embedding table too); vectors are not decayed.
    pub weight_decay: f32,
    /// Largest global norm of the gradients; 0 leaves them as they are.
    pub clip: f32,
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0 }
    }
}

/// How the micro-batches of one step are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Accumulation {
    /// The loss is the mean over everything that counts in the step.
    #[default]
    Mean,
    /// CoreNet's: each micro-batch has its own mean, and the gradients are summed, not averaged.
    SumOfMeans,
}

/// What a trainer does with gradients and memory.
#[derive(Clone, Default)]
pub struct TrainerOptions {
    /// The optimiser.
    pub optimizer: OptimizerOptions,
    /// How micro-batches are put together.
    pub accumulation: Accumulation,
    /// What is kept how in memory.
    pub keeping: Keeping,
    /// In which numbers factors are multiplied.
    pub products: Products,
    /// How the work is spread over ranks.
    pub distribution: Distribution,
    /// An input that has no embedding to learn (CoreNet's `padding_index`).
    pub padding: Option<u32>,
    /// What the choice depends on which inputs an adapter drops; without it none are.
    pub dropout_seed: Option<u64>,
}

/// What came out of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// The loss of all micro-batches, before the update.
    pub loss: Loss,
    /// The same of the last micro-batch alone (what CoreNet logs).
    pub last: Loss,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Update {
    /// It was made.
    Made(StepReport),
    /// A rank refused what it would be made of: weights, moments and the number of updates are as they were, and the
    /// gradients can be looked at.
    Refused(StepReport),
}

/// A model in training.
pub struct Trainer {
    model: TrainableModel,
    network: Network,
    gradients: Parameters,
    /// Moments of what this rank updates, piece after piece.
    moments: Moments,
    pieces: Vec<Piece>,
    reduction: Reduction,
    optimizer: OptimizerOptions,
    accumulation: Accumulation,
    dropout_seed: Option<u64>,
    step: u64,
}

impl Trainer {
    /// Starts from `model`, with moments of zero.
    ///
    /// # Panics
    /// If the shares of the distribution are no multiple of its ranks by a power of two.
    pub fn new(model: TrainableModel, threads: Threads, options: TrainerOptions) -> Self {
        let TrainerOptions { optimizer, accumulation, keeping, products, distribution, padding, dropout_seed } =
            options;
        let reduction = Reduction::new(model.parameters(), distribution);
        let pieces = reduction.pieces(model.parameters());
        let length = pieces.last().map_or(0, |piece| piece.moments.end);
        Self {
            network: Network::new(model.config(), threads, keeping, padding).with_products(products),
            gradients: Parameters::of(model.parameters().specs().to_vec()),
            moments: Moments::zeros(length, keeping.bf16_moments),
            pieces,
            reduction,
            optimizer,
            accumulation,
            dropout_seed,
            step: 0,
            model,
        }
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The model.
    pub fn model(&self) -> &TrainableModel {
        &self.model
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// The weights in training.
    pub fn parameters(&self) -> &Parameters {
        self.model.parameters()
    }

    /// The threads that it uses.
    pub fn threads(&self) -> &Threads {
        self.network.threads()
    }

    /// First and second moments of the gradients, in the order of the weights. Where each rank keeps a part of them, all
    /// ranks must call this at the same step, and only rank 0 gets them; elsewhere they are empty.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn moments(&self) -> Result<[Cow<'_, [f32]>; 2], CollectiveError> {
        let [first, second] = self.moments.widened();
        match self.reduction.sharded() {
            true => {
                let gathered = |kept| self.reduction.gather_moments(kept).map(Cow::Owned);
                Ok([gathered(&first)?, gathered(&second)?])
            }
            false => Ok([first, second]),
        }
    }

    /// Goes on from a checkpoint: gives the model, whose weights are to be filled in, and sets the number of updates. The
    /// moments are set by [`Trainer::restore_moments`].
    pub fn restore(&mut self, step: u64) -> &mut TrainableModel {
        self.step = step;
        &mut self.model
    }

    /// Sets the first and second moments of the weights from number `start` on; what other ranks keep is passed over.
    ///
    /// # Panics
    /// If the two differ in length.
    pub fn restore_moments(&mut self, start: usize, first: &[f32], second: &[f32]) {
        assert_eq!(first.len(), second.len(), "there are as many first as second moments");
        let end = start + first.len();
        for Piece { weights, moments, .. } in &self.pieces {
            let known = weights.start.max(start)..weights.end.min(end);
            if !known.is_empty() {
                let kept = moments.start + known.start - weights.start..moments.start + known.end - weights.start;
                let known = known.start - start..known.end - start;
                self.moments.restore(kept.start, [&first[known.clone()], &second[known]]);
            }
        }
    }

    /// One update at `learning_rate` from all ranks' micro-batches, of which this rank has `micro_batches`: as many as
    /// each other rank, and those that come after the ones of the ranks before it.
    ///
    /// # Errors
    /// If another rank is gone; this trainer is of no use then.
    ///
    /// # Panics
    /// If there is no micro-batch, or their number is no multiple of this rank's shares.
    pub fn step<O: Objective>(
        &mut self,
        objective: &O,
        micro_batches: &[O::Batch],
        learning_rate: f32,
    ) -> Result<StepReport, CollectiveError> {
        match self.step_if(objective, micro_batches, learning_rate, |_| true)? {
            Update::Made(report) | Update::Refused(report) => Ok(report),
        }
    }

    /// One update, unless `accept` of one of the ranks refuses what it would be made of.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_if<O: Objective>(
        &mut self,
        objective: &O,
        micro_batches: &[O::Batch],
        learning_rate: f32,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> Result<Update, CollectiveError> {
        let losses = self.compute_gradients(objective, micro_batches)?;
        let gradient_norm = self.reduction.norm(self.network.threads(), self.gradients.values())?;
        let mut loss = Loss::default();
        losses.iter().for_each(|other| loss += other);
        let report = StepReport { loss, last: losses.last().cloned().unwrap_or_default(), gradient_norm };
        if self.reduction.ranks().any(!accept(&report))? {
            self.reduction.gather(self.gradients.values_mut())?;
            return Ok(Update::Refused(report));
        }
        self.update(learning_rate, gradient_norm)?;
        Ok(Update::Made(report))
    }

    /// Fills the gradients from this rank's `micro_batches` and those of all others; gives the loss of each micro-batch of
    /// the update, in order. If the moments are sharded, only what this rank answers for is filled.
    fn compute_gradients<O: Objective>(
        &mut self,
        objective: &O,
        micro_batches: &[O::Batch],
    ) -> Result<Vec<Loss>, CollectiveError> {
        let Self { model, network, gradients, reduction, accumulation, dropout_seed, step, .. } = self;
        let threads = &network.threads().clone();
        let mine: f64 = micro_batches.iter().map(|batch| objective.amount(batch)).sum();
        let total = reduction.ranks().gather(&[mine])?.iter().sum::<f64>();
        let scale = |batch: &O::Batch| {
            let amount = match accumulation {
                Accumulation::Mean => total,
                Accumulation::SumOfMeans => objective.amount(batch),
            };
            // A batch of nothing but padding has no loss.
            1.0 / if amount > 0.0 { amount as f32 } else { 1.0 }
        };
        // Of this seed, this update and the place of the micro-batch in it, whichever rank has it.
        let seed = dropout_seed.map(|key| Dropout { probability: 0.0, key }.of(*step));
        let first = reduction.ranks().rank() * micro_batches.len();
        let key = |i: usize| seed.map(|seed| seed.of((first + i) as u64).key);
        let shares = reduction.shares();
        let even = !micro_batches.is_empty() && micro_batches.len().is_multiple_of(shares);
        assert!(even, "{} micro-batches for {shares} shares", micro_batches.len());
        let numbers = 4 + objective.metrics().len();
        let mut losses = Vec::with_capacity(numbers * micro_batches.len());
        let mut note = |loss: Loss| losses.extend(loss.numbers());
        let (each, last) = (micro_batches.len() / shares, micro_batches.len() - 1);
        for (i, batch) in micro_batches[..last].iter().enumerate() {
            let sum = (&mut *gradients, !i.is_multiple_of(each));
            note(network.gradients(model, sum, objective, batch, (scale(batch), key(i)), &mut |_, _| ()));
            if (i + 1).is_multiple_of(each) {
                reduction.carry(threads, i / each, gradients.values_mut());
            }
        }
        let batch = &micro_batches[last];
        note(reduction.complete(threads, |ready| {
            let sum = (gradients, !last.is_multiple_of(each));
            network.gradients(model, sum, objective, batch, (scale(batch), key(last)), ready)
        })?);
        let losses = reduction.ranks().gather(&losses)?;
        Ok(losses.chunks_exact(numbers).map(Loss::from_numbers).collect())
    }

    /// Applies the gradients, whose global norm is `gradient_norm`.
    fn update(&mut self, learning_rate: f32, gradient_norm: f64) -> Result<(), CollectiveError> {
        let OptimizerOptions { beta1, beta2, eps, weight_decay, clip } = self.optimizer;
        let gradient_scale = if clip == 0.0 { 1.0 } else { gradient_norm::clip_scale(gradient_norm, clip) };
        self.step += 1;
        let values = self.model.parameters_mut().values_mut();
        for Piece { weights, moments, matrix } in &self.pieces {
            let weight_decay = if *matrix { weight_decay } else { 0.0 };
            let step = self.step;
            let options = AdamW { learning_rate, beta1, beta2, eps, weight_decay, step, gradient_scale };
            let gradients = &self.gradients.values()[weights.clone()];
            let weights = &mut values[weights.clone()];
            self.moments.update(self.network.threads(), moments.clone(), weights, gradients, &options);
        }
        self.reduction.gather(values)
    }

    /// The loss of `batch`, without an update.
    pub fn validate<O: Objective>(&mut self, objective: &O, batch: &O::Batch) -> Loss {
        self.network.loss(&self.model, objective, batch)
    }

    /// The logarithm of the probability of each target of `batch`, in nats, `[sequences, time]`.
    pub fn log_probabilities(&mut self, batch: &Batch) -> Vec<f64> {
        self.network.log_probabilities(&self.model, batch)
    }

    /// The gradients of the last step, before clipping. Where the moments are shared out this rank has its part of them, and
    /// all of them if the update was refused.
    pub fn gradients(&self) -> &Parameters {
        &self.gradients
    }
}
