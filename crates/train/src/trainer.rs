//! Weights, gradients, moments and the step that ties them together.

use std::borrow::Cow;

use openelm_kernels::adamw::AdamW;
use openelm_kernels::cross_entropy::LossSums;
use openelm_kernels::{Threads, gradient_norm};
use openelm_model::ModelConfig;

use crate::collective::CollectiveError;
use crate::data::Batch;
use crate::moments::Moments;
use crate::network::{Keeping, LossOptions, Network};
use crate::parameters::Parameters;
use crate::reduction::{Accumulation, Distribution, Piece, Reduction};

/// Settings of the optimiser that stay the same from step to step.
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

/// What came out of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Sums of the losses over all micro-batches, before the update.
    pub loss: LossSums,
    /// The same of the last micro-batch alone (what CoreNet logs).
    pub last: LossSums,
    /// Global norm of the gradients before clipping.
    pub gradient_norm: f64,
}

/// A model in training.
pub struct Trainer {
    config: ModelConfig,
    threads: Threads,
    network: Network,
    parameters: Parameters,
    gradients: Parameters,
    /// Moments of what this rank updates, piece after piece.
    moments: Moments,
    keeping: Keeping,
    pieces: Vec<Piece>,
    reduction: Reduction,
    loss: LossOptions,
    optimizer: OptimizerOptions,
    accumulation: Accumulation,
    step: u64,
}

impl Trainer {
    /// Starts from `parameters`, with moments of zero.
    pub fn new(
        config: ModelConfig,
        parameters: Parameters,
        threads: Threads,
        loss: LossOptions,
        optimizer: OptimizerOptions,
        accumulation: Accumulation,
    ) -> Self {
        let reduction = Reduction::new(&parameters, Distribution::default());
        let mut trainer = Self {
            network: Network::new(config.clone(), threads.clone()),
            gradients: Parameters::zeros(&config),
            moments: Moments::zeros(0, false),
            keeping: Keeping::default(),
            pieces: Vec::new(),
            reduction,
            step: 0,
            config,
            threads,
            parameters,
            loss,
            optimizer,
            accumulation,
        };
        trainer.reset_moments();
        trainer
    }

    /// The same trainer as one of the ranks of `distribution`, with moments of zero.
    ///
    /// # Panics
    /// If the shares are no multiple of the ranks by a power of two.
    #[must_use]
    pub fn distributed(mut self, distribution: Distribution) -> Self {
        self.reduction = Reduction::new(&self.parameters, distribution);
        self.reset_moments();
        self
    }

    fn reset_moments(&mut self) {
        self.pieces = self.reduction.pieces(&self.parameters);
        let length = self.pieces.last().map_or(0, |piece| piece.moments.end);
        self.moments = Moments::zeros(length, self.keeping.bf16_moments);
    }

    /// The same trainer, keeping in memory what `keeping` says, with moments of zero.
    #[must_use]
    pub fn keeping(self, keeping: Keeping) -> Self {
        let mut trainer = Self { network: self.network.keeping(keeping), keeping, ..self };
        trainer.reset_moments();
        trainer
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
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

    /// Goes on from a checkpoint: gives the weights to be filled in, and sets the number of updates. The moments are set by
    /// [`Trainer::restore_moments`].
    pub fn restore(&mut self, step: u64) -> &mut Parameters {
        self.step = step;
        &mut self.parameters
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
    pub fn step(&mut self, micro_batches: &[Batch], learning_rate: f32) -> Result<StepReport, CollectiveError> {
        self.step_if(micro_batches, learning_rate, |_| true)
    }

    /// One update, unless `accept` of one of the ranks refuses what it would be made of: weights, moments and the number of
    /// updates then stay as they are, and the gradients can be looked at.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn step_if(
        &mut self,
        micro_batches: &[Batch],
        learning_rate: f32,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> Result<StepReport, CollectiveError> {
        let sums = self.reduction.gradients(
            &mut self.network,
            &self.parameters,
            &mut self.gradients,
            micro_batches,
            self.loss,
            self.accumulation,
            &self.threads,
        )?;
        let gradient_norm = self.reduction.norm(&self.threads, self.gradients.values())?;
        let mut loss = LossSums::default();
        sums.iter().for_each(|&sum| loss += sum);
        let report = StepReport { loss, last: sums.last().copied().unwrap_or_default(), gradient_norm };
        if self.reduction.ranks().any(!accept(&report))? {
            self.reduction.gather(self.gradients.values_mut())?;
            return Ok(report);
        }
        let scale = match self.optimizer.clip {
            0.0 => 1.0,
            clip => gradient_norm::clip_scale(gradient_norm, clip),
        };
        self.step += 1;
        for Piece { weights, moments, matrix } in &self.pieces {
            let OptimizerOptions { beta1, beta2, eps, weight_decay, .. } = self.optimizer;
            let weight_decay = if *matrix { weight_decay } else { 0.0 };
            let options = AdamW { learning_rate, beta1, beta2, eps, weight_decay };
            let gradients = &self.gradients.values()[weights.clone()];
            let weights = &mut self.parameters.values_mut()[weights.clone()];
            self.moments.update(&self.threads, moments.clone(), weights, gradients, &options, self.step, scale);
        }
        self.reduction.gather(self.parameters.values_mut())?;
        Ok(report)
    }

    /// Sums of the losses of `batch`, without an update.
    pub fn validate(&mut self, batch: &Batch) -> LossSums {
        self.network.loss(&self.parameters, batch, self.loss)
    }

    /// The gradients of the last step, before clipping. Where the moments are shared out this rank has its part of them, and
    /// all of them if the update was refused.
    pub fn gradients(&self) -> &Parameters {
        &self.gradients
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}
