//! Training OpenELM.
//!
//! ```text
//! corpus, or examples -> documents -> token ids -> packed batches -> forward -> chunked loss -> backward -> clip -> AdamW
//!        -> log, validation, checkpoint
//! ```

mod average;
mod backward;
pub mod collective;
pub mod data;
mod footprint;
mod initialisation;
mod linear;
mod moments;
mod network;
mod objective;
mod parameters;
mod precision;
pub mod pretrain;
mod recipe;
mod reduction;
mod rounded;
pub mod run;
mod samples;
mod schedule;
mod starter;
mod text_repair;
mod tokenizer_training;
pub mod train_log;
mod trainable;
mod trainer;
pub mod tune;

pub use average::{AverageError, average};
pub use footprint::{TrainingFootprint, TrainingMemoryError};
pub use initialisation::initialise;
pub use network::{Keeping, Network};
pub use objective::{Loss, NextToken, Objective, TargetWeights, Weighed};
pub use parameters::Parameters;
pub use recipe::{CheckpointRecipe, LogRecipe, ProductPrecision, Recipe, RecipeError, SpikeRecipe};
pub use reduction::Distribution;
pub use schedule::Schedule;
pub use starter::{Starter, StarterError, write_starter};
pub use text_repair::{NoTextRepair, text_repair};
pub use tokenizer_training::{TokenizerTrainingError, train_tokenizer};
pub use trainable::TrainableModel;
pub use trainer::{Accumulation, OptimizerOptions, StepReport, Trainer, TrainerOptions, Update};
