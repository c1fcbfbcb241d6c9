//! Weights, gradients, moments and the step that ties them together.

use openelm::ModelConfig;
use openelm_kernels::adamw::{self, AdamW};
use openelm_kernels::cross_entropy::LossSums;
use openelm_kernels::{Threads, gradient_norm};

use crate::data::Batch;
use crate::memory::Keeping;
use crate::network::{LossOptions, Network};
use crate::parameters::Parameters;

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

/// How the micro-batches of one step are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulation {
    /// The loss is the mean over all counted tokens of the step.
    Mean,
    /// CoreNet's: each micro-batch has its own mean, and the gradients are summed, not averaged.
    SumOfMeans,
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
    first_moments: Parameters,
    second_moments: Parameters,
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
        Self {
            network: Network::new(config.clone(), threads.clone()),
            gradients: Parameters::zeros(&config),
            first_moments: Parameters::zeros(&config),
            second_moments: Parameters::zeros(&config),
            step: 0,
            config,
            threads,
            parameters,
            loss,
            optimizer,
            accumulation,
        }
    }

    /// The same trainer, keeping in memory what `keeping` says.
    #[must_use]
    pub fn keeping(self, keeping: Keeping) -> Self {
        Self { network: self.network.recompute(keeping.recompute), ..self }
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The weights.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// First and second moments of the gradients.
    pub fn moments(&self) -> [&Parameters; 2] {
        [&self.first_moments, &self.second_moments]
    }

    /// Goes on from a checkpoint: gives the weights and both moments to be filled in, and sets the number of updates.
    pub fn restore(&mut self, step: u64) -> [&mut Parameters; 3] {
        self.step = step;
        [&mut self.parameters, &mut self.first_moments, &mut self.second_moments]
    }

    /// One update from all `micro_batches` at `learning_rate`.
    pub fn step(&mut self, micro_batches: &[Batch], learning_rate: f32) -> StepReport {
        self.step_if(micro_batches, learning_rate, |_| true)
    }

    /// One update, unless `accept` refuses what it would be made of: weights, moments and the number of updates then stay as
    /// they are, and the gradients can be looked at.
    pub fn step_if(
        &mut self,
        micro_batches: &[Batch],
        learning_rate: f32,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> StepReport {
        let (loss, last) = self.accumulate(micro_batches);
        let gradient_norm = gradient_norm::sum_of_squares(&self.threads, self.gradients.values()).sqrt();
        let report = StepReport { loss, last, gradient_norm };
        if !accept(&report) {
            return report;
        }
        let scale = match self.optimizer.clip {
            0.0 => 1.0,
            clip => gradient_norm::clip_scale(gradient_norm, clip),
        };
        self.step += 1;
        let moments = self.first_moments.tensors_mut().zip(self.second_moments.tensors_mut());
        let tensors = self.parameters.tensors_mut().zip(self.gradients.tensors()).zip(moments);
        for (((spec, weights), (_, gradients)), ((_, first), (_, second))) in tensors {
            let OptimizerOptions { beta1, beta2, eps, weight_decay, .. } = self.optimizer;
            let weight_decay = if spec.shape.len() > 1 { weight_decay } else { 0.0 };
            let options = AdamW { learning_rate, beta1, beta2, eps, weight_decay };
            adamw::step(&self.threads, weights, gradients, first, second, &options, self.step, scale);
        }
        report
    }

    /// Sums of the losses of `batch`, without an update.
    pub fn validate(&mut self, batch: &Batch) -> LossSums {
        self.network.loss(&self.parameters, batch, self.loss)
    }

    /// Fills `gradients` from all micro-batches.
    fn accumulate(&mut self, micro_batches: &[Batch]) -> (LossSums, LossSums) {
        self.gradients.values_mut().fill(0.0);
        let counted = |batch: &Batch| batch.targets.iter().filter(|&&id| Some(id) != self.loss.ignore).count();
        let total: usize = micro_batches.iter().map(counted).sum();
        let (mut sums, mut last) = (LossSums::default(), LossSums::default());
        for batch in micro_batches {
            let tokens = match self.accumulation {
                Accumulation::Mean => total,
                Accumulation::SumOfMeans => counted(batch),
            };
            // A batch of nothing but padding has no loss.
            let scale = 1.0 / tokens.max(1) as f32;
            last = self.network.gradients(&self.parameters, &mut self.gradients, batch, self.loss, scale);
            sums += last;
        }
        (sums, last)
    }

    /// The gradients of the last step, before clipping.
    pub fn gradients(&self) -> &Parameters {
        &self.gradients
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}
