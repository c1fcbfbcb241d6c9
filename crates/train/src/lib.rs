//! Training OpenELM.
//!
//! ```text
//! corpus -> documents -> token ids -> packed batches -> forward -> chunked loss -> backward -> clip -> AdamW
//!        -> log, validation, checkpoint
//! ```

mod average;
mod backward;
mod checkpoint;
pub mod collective;
pub mod data;
mod initialisation;
mod memory;
mod moments;
mod network;
mod parameters;
pub mod pretrain;
mod recipe;
mod reduction;
mod rounded;
mod schedule;
mod starter;
mod text_repair;
mod tokenizer_training;
pub mod train_log;
mod trainer;

pub use average::{AverageError, average};
pub use checkpoint::{CheckpointError, Checkpoints, Keep, RunState, Snapshot};
pub use initialisation::initialise;
pub use memory::{Keeping, TrainingFootprint, TrainingMemoryError};
pub use network::{LossOptions, Network};
pub use parameters::Parameters;
pub use recipe::{Recipe, RecipeError};
pub use reduction::Distribution;
pub use schedule::Schedule;
pub use starter::{Starter, StarterError, write_starter};
pub use text_repair::{NoTextRepair, text_repair};
pub use tokenizer_training::{TokenizerTrainingError, train_tokenizer};
pub use trainer::{Accumulation, OptimizerOptions, StepReport, Trainer};
