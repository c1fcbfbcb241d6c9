//! Training OpenELM.
//!
//! ```text
//! corpus -> documents -> token ids -> packed batches -> forward -> chunked loss -> backward -> clip -> AdamW
//!        -> log, validation, checkpoint
//! ```

mod backward;
pub mod data;
mod initialisation;
mod network;
mod parameters;
mod schedule;
mod tokenizer_training;
mod trainer;

pub use initialisation::initialise;
pub use network::{LossOptions, Network};
pub use parameters::Parameters;
pub use schedule::Schedule;
pub use tokenizer_training::{TokenizerTrainingError, train_tokenizer};
pub use trainer::{Accumulation, OptimizerOptions, StepReport, Trainer};
