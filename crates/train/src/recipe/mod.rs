//! What a training run is: a TOML file with every number in it.

pub(crate) mod changes;
pub(crate) mod checks;
pub(crate) mod file;

use std::path::PathBuf;

use openelm_kernels::rounded::Products;
use openelm_model::{Geometry, ModelConfig};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::data::CorpusConfig;
use crate::network::Keeping;
use crate::schedule::Schedule;
use crate::trainer::{Accumulation, OptimizerOptions};
pub use file::RecipeError;

/// A pretraining run. Paths are relative to the current folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Folder for checkpoints and logs; the same folder again goes on where the run stopped.
    pub output: PathBuf,
    /// The model's geometry; the size of the vocabulary is the tokenizer's.
    pub model: Geometry,
    /// How text becomes ids.
    pub tokenizer: TokenizerRecipe,
    /// What is learnt from.
    pub data: CorpusConfig,
    /// What progress is measured on: one table, or several with a name each. `data.parity` holds for them too.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<ValidationRecipe>,
    /// Sizes and length of the run.
    pub train: TrainRecipe,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerRecipe,
    /// The learning rate.
    pub schedule: ScheduleRecipe,
    /// What is written down on the way.
    #[serde(default)]
    pub log: LogRecipe,
    /// When the state is saved.
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    /// When a loss that rises stops the run.
    #[serde(default)]
    pub spike: SpikeRecipe,
}

/// A corpus that progress is measured on: its name, and the keys of a [`CorpusConfig`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValidationRecipe {
    /// What the log calls it; `validation` where nothing is said.
    pub name: String,
    /// The corpus.
    #[serde(flatten)]
    pub corpus: CorpusConfig,
}

impl<'de> Deserialize<'de> for ValidationRecipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde cannot refuse unknown fields of a flattened struct, so the name is taken out by hand.
        let mut table = toml::Table::deserialize(deserializer)?;
        let name = table.remove("name").map_or_else(|| Ok("validation".to_owned()), toml::Value::try_into);
        let wrong = |e: toml::de::Error| D::Error::custom(e.message());
        Ok(Self { name: name.map_err(wrong)?, corpus: table.try_into().map_err(wrong)? })
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ValidationRecipe>, D::Error> {
    let value = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(tables) => tables,
        table => vec![table],
    };
    let recipes = value.into_iter().map(toml::Value::try_into);
    recipes.collect::<Result<_, toml::de::Error>>().map_err(|e| D::Error::custom(e.message()))
}

/// When a loss that rises stops the run: `updates` times in a row more than `deviations` standard deviations above the
/// smoothed loss. Losses and gradients that are no numbers always do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpikeRecipe {
    /// Standard deviations above the smoothed loss; 0 lets it rise.
    pub deviations: f64,
    /// Updates in a row.
    pub updates: u64,
}

impl Default for SpikeRecipe {
    fn default() -> Self {
        Self { deviations: 0.0, updates: 3 }
    }
}

/// How text becomes ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// A `.model` or `tokenizer.json` file, or a folder with one.
    pub path: PathBuf,
    /// Whether documents are repaired by ftfy's rules first.
    #[serde(default)]
    pub clean: bool,
}

/// Sizes and length of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Decides the first weights and the order of the data.
    #[serde(default)]
    pub seed: u64,
    /// Tokens per sequence.
    pub sequence_length: usize,
    /// Sequences per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per update.
    #[serde(default = "one")]
    pub accumulation: usize,
    /// How micro-batches are put together: `mean` over all tokens, or `sum` of their means as in CoreNet.
    #[serde(default)]
    pub accumulate: AccumulateRecipe,
    /// Parts in which an update's micro-batches are summed; as many as there are ranks where nothing is said. With the same
    /// number the run is the same to the bit on any number of ranks. A rank with several parts keeps more gradients: one
    /// copy for each time that its number of parts can be halved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<usize>,
    /// What is kept by one rank instead of by all: nothing, or the `optimizer`'s moments (ZeRO-1).
    #[serde(default)]
    pub sharding: Sharding,
    /// Updates.
    pub steps: u64,
    /// What the backward pass computes again instead of keeping it: `none`, or each `block`.
    #[serde(default)]
    pub recompute: RecomputeRecipe,
    /// Precision in which the forward pass keeps activations for the backward pass.
    #[serde(default)]
    pub activations: Precision,
    /// In which numbers the products with weights are taken, forward and backward: `f32`, `bf16`, or `auto`. Weights,
    /// gradients, moments, sums, norms, softmax and loss are `f32` in any case.
    #[serde(default)]
    pub precision: ProductPrecision,
}

/// In which numbers factors are multiplied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProductPrecision {
    /// Single precision: what agrees with CoreNet's numbers in `f32` to the digit.
    #[default]
    F32,
    /// Rounded to bf16, as CoreNet trains (autocast).
    BF16,
    /// `bf16` where the processor is faster at it, otherwise, and with `data.parity`, `f32`. A run keeps what it began with.
    Auto,
}

/// What the backward pass computes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecomputeRecipe {
    /// Nothing: the activations of all layers are kept.
    #[default]
    None,
    /// Each block, from its input: less memory, a third more arithmetic, the same results to the bit.
    Block,
}

fn one() -> usize {
    1
}

/// How micro-batches are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccumulateRecipe {
    /// The mean over all tokens of the update.
    #[default]
    Mean,
    /// The sum of the micro-batches' means, as in CoreNet.
    Sum,
}

/// What ranks share out among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharding {
    /// Nothing: each rank holds everything.
    #[default]
    None,
    /// The moments: each rank updates a part of the weights (ZeRO-1).
    Optimizer,
}

/// AdamW and what surrounds it; CoreNet's values where nothing is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerRecipe {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// Largest global norm of the gradients; 0 is no limit.
    pub clip: f32,
    /// Weight of the z-loss.
    pub z_loss: f32,
    /// Precision in which the moments are kept between steps.
    pub moments: Precision,
}

/// The precision in which something is kept; all is computed in single precision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision.
    #[default]
    F32,
    /// Half the memory, two to three decimal digits; the decays may be 0.996 at most.
    BF16,
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip: 1.0, z_loss: 1e-4, moments: Precision::F32 }
    }
}

impl OptimizerRecipe {
    /// What the trainer is told.
    pub(crate) fn options(&self) -> OptimizerOptions {
        let Self { beta1, beta2, eps, weight_decay, clip, .. } = *self;
        OptimizerOptions { beta1, beta2, eps, weight_decay, clip }
    }
}

/// A cosine with warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Rate at the end of the warm-up.
    pub max_lr: f64,
    /// Rate at the end; a tenth of `max_lr` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Updates of the warm-up.
    pub warmup_steps: u64,
    /// Rate of the first update.
    #[serde(default = "warmup_init_lr")]
    pub warmup_init_lr: f64,
}

fn warmup_init_lr() -> f64 {
    1e-6
}

/// What is written down on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRecipe {
    /// Updates between two entries.
    pub every: u64,
    /// Updates between two measurements on the validation corpus.
    pub validate_every: u64,
    /// Most micro-batches of a measurement.
    pub validation_batches: usize,
    /// Whether TensorBoard events are written too.
    pub tensorboard: bool,
    /// Updates between two samples of what the model writes; 0 is none.
    pub sample_every: u64,
    /// What the samples begin with.
    pub prompts: Vec<String>,
    /// Tokens of a sample.
    pub sample_tokens: usize,
}

impl Default for LogRecipe {
    fn default() -> Self {
        Self {
            every: 10,
            validate_every: 500,
            validation_batches: 50,
            tensorboard: true,
            sample_every: 0,
            prompts: vec!["Once upon a time".to_owned()],
            sample_tokens: 60,
        }
    }
}

/// When the state is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Updates between two checkpoints.
    pub every: u64,
    /// Newest checkpoints that are kept; 0 keeps all.
    pub keep: usize,
    /// Checkpoints of every so many updates are kept as well; 0 is none.
    pub keep_every: u64,
    /// Whether they are written while training goes on, from a copy of weights and moments; otherwise training waits.
    pub background: bool,
}

impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self { every: 1000, keep: 3, keep_every: 0, background: true }
    }
}

impl Recipe {
    /// The learning rate of each update.
    pub fn schedule(&self) -> Schedule {
        let ScheduleRecipe { max_lr, min_lr, warmup_steps, warmup_init_lr } = self.schedule;
        let min_lr = min_lr.unwrap_or(0.1 * max_lr);
        Schedule { warmup_init_lr, max_lr, min_lr, warmup_steps, steps: self.train.steps }
    }

    /// The optimiser's settings.
    pub(crate) fn optimizer(&self) -> OptimizerOptions {
        self.optimizer.options()
    }

    /// In which numbers factors are multiplied; in `f32` as long as that is not decided.
    pub(crate) fn products(&self) -> Products {
        if self.train.precision == ProductPrecision::BF16 { Products::BF16 } else { Products::F32 }
    }

    /// What is kept how in memory.
    pub fn keeping(&self) -> Keeping {
        Keeping {
            recompute: self.train.recompute == RecomputeRecipe::Block,
            bf16_activations: self.train.activations == Precision::BF16,
            bf16_moments: self.optimizer.moments == Precision::BF16,
        }
    }

    /// How micro-batches are put together.
    pub(crate) fn accumulation(&self) -> Accumulation {
        match self.train.accumulate {
            AccumulateRecipe::Mean => Accumulation::Mean,
            AccumulateRecipe::Sum => Accumulation::SumOfMeans,
        }
    }

    /// The model for a tokenizer of `vocab_size` pieces. With CoreNet's pipeline its embedding has a row for the id of the
    /// padding, which is `vocab_size`, and as many more as make a multiple of 128.
    ///
    /// # Errors
    /// If the geometry makes no model.
    pub fn model_config(&self, vocab_size: usize) -> Result<ModelConfig, openelm_model::ConfigError> {
        let padded = self.data.parity.map(|_| (vocab_size + 1).next_multiple_of(128));
        self.model.build(padded.unwrap_or(vocab_size))
    }
}
