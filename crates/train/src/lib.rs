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
mod trainer;

pub use initialisation::initialise;
pub use network::{LossOptions, Network};
pub use parameters::Parameters;
pub use schedule::Schedule;
pub use trainer::{Accumulation, OptimizerOptions, StepReport, Trainer};
