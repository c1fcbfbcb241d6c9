//! What can stop a run.

use std::io;
use std::path::{Path, PathBuf};

use openelm_model::{ConfigError, ModelError, TokenizerError};

use crate::checkpoint::CheckpointError;
use crate::collective::CollectiveError;
use crate::data::DataError;

/// A run that cannot begin or go on. What was saved before stands.
#[derive(Debug, thiserror::Error)]
pub enum PretrainError {
    /// The system could not do what was asked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another run writes to the same folder.
    #[error("another run uses {}; wait for it to end or choose another output folder", folder.display())]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The geometry makes no model.
    #[error("the recipe's [model]: {0}")]
    Config(#[from] ConfigError),
    /// The weights to begin with make no model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The corpus cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A validation corpus cannot be read.
    #[error("validation corpus {name}: {source}")]
    Validation {
        /// Its name.
        name: String,
        /// What is wrong.
        source: DataError,
    },
    /// A sample cannot be written.
    #[error("log.prompts: no sample for {prompt:?}: {reason}")]
    Sample {
        /// The prompt.
        prompt: String,
        /// What is wrong.
        reason: String,
    },
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The numbers are no numbers any more; the update was not made.
    #[error(
        "the {what} would be {value} at step {step}; {}: go on with a lower schedule.max_lr, or look for what is wrong with \
         the corpus",
        kept(study)
    )]
    Diverged {
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The update.
        step: u64,
        /// The folder of what was kept for study, or why nothing was.
        study: Result<PathBuf, CheckpointError>,
    },
    /// A run that ends, and whose state cannot be saved either.
    #[error("{reason}; its state is not saved: {source}")]
    Unsaved {
        /// Why it ends.
        reason: Box<PretrainError>,
        /// Why its state is not saved.
        source: Box<PretrainError>,
    },
    /// The loss rose more than the recipe allows; the last of these updates was not made.
    #[error(
        "the loss was too high for {updates} updates in a row, {loss:.3} at step {step} where {usual:.3} was usual; {}: move \
         its checkpoint into checkpoints/, in the place of one of the same name, to go on behind that batch, or go on from an \
         earlier one with a lower schedule.max_lr",
        kept(study)
    )]
    Spike {
        /// Updates whose loss was too high.
        updates: u64,
        /// The last loss.
        loss: f64,
        /// The smoothed loss before.
        usual: f64,
        /// The update.
        step: u64,
        /// The folder of what was kept for study, or why nothing was.
        study: Result<PathBuf, CheckpointError>,
    },
    /// The work of an update cannot be shared out.
    #[error(
        "{ranks} ranks cannot share the {accumulation} micro-batches of an update (train.accumulation) in {shares} shares \
         (train.shares): micro-batches must be a multiple of the shares, and shares of the ranks, by a power of two"
    )]
    Ranks {
        /// Ranks of the job.
        ranks: usize,
        /// Parts that are summed.
        shares: usize,
        /// Micro-batches of an update.
        accumulation: usize,
    },
    /// Another rank is gone.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// The picture of the losses cannot be drawn.
    #[error("the loss curve cannot be drawn: {0}")]
    Curve(String),
}

/// Where the batch of an update that was not made is.
fn kept(study: &Result<PathBuf, CheckpointError>) -> String {
    match study {
        Ok(folder) => format!("the batch and the weights before it are in {}", folder.display()),
        Err(e) => format!("the batch and the weights before it could not be kept ({e})"),
    }
}

/// Says which file an error of the system concerns.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> PretrainError {
    let path = path.to_owned();
    move |source| PretrainError::Io { path, source }
}
