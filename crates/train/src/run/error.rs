//! What can stop a run.

use std::io;
use std::path::{Path, PathBuf};

use openelm_formats::FormatError;
use openelm_model::{AdapterError, ConfigError, ModelError, TokenizerError};

use crate::NoTextRepair;
use crate::collective::CollectiveError;
use crate::data::DataError;
use crate::tune::TuneError;

/// A run that cannot begin or go on. What was saved before stands.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
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
    /// The tokenizer's file cannot be opened.
    #[error(transparent)]
    TokenizerFile(FormatError),
    /// The recipe wants texts repaired, which this build cannot do.
    #[error("tokenizer.clean: {0}")]
    TextRepair(#[from] NoTextRepair),
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
        what_is_kept(kept)
    )]
    Diverged {
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The update.
        step: u64,
        /// The folder of what was kept for study, or why nothing was.
        kept: Result<PathBuf, CheckpointError>,
    },
    /// A run that ends, and whose state cannot be saved either.
    #[error("{reason}; its state is not saved: {source}")]
    Unsaved {
        /// Why it ends.
        reason: Box<RunError>,
        /// Why its state is not saved.
        source: Box<RunError>,
    },
    /// The loss rose more than the recipe allows; the last of these updates was not made.
    #[error(
        "the loss was too high for {updates} updates in a row, {loss:.3} at step {step} where {usual:.3} was usual; {}: move \
         its checkpoint into checkpoints/, in the place of one of the same name, to go on behind that batch, or go on from an \
         earlier one with a lower schedule.max_lr",
        what_is_kept(kept)
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
        kept: Result<PathBuf, CheckpointError>,
    },
    /// The work of an update cannot be shared out.
    #[error(
        "{ranks} ranks cannot share the {accumulation} micro-batches of an update (train.accumulation) in {shares} shares \
         (train.shares): micro-batches must be a multiple of the shares, and shares of the ranks, by a power of two"
    )]
    Ranks {
        /// Ranks of the run.
        ranks: usize,
        /// Parts that are summed.
        shares: usize,
        /// Micro-batches of an update.
        accumulation: usize,
    },
    /// A tuning run cannot begin or go on.
    #[error(transparent)]
    Tune(#[from] TuneError),
    /// Another rank is gone.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// Ranks do not understand each other.
    #[error("this rank and the first do not understand each other ({0}); start all ranks with the same program")]
    Command(serde_json::Error),
    /// The picture of the losses cannot be drawn.
    #[error("the loss curve cannot be drawn: {0}")]
    Curve(String),
}

/// A checkpoint that cannot be written or read; the message names the file.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The system could not do what was asked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "checkpoint {} cannot be written: {source}; the ones before it stand: make room and give the same command again",
        path.display()
    )]
    Write {
        /// The checkpoint.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The model in it cannot be written or read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The values are those of an adapter no more.
    #[error("the adapter cannot be written: {0}")]
    Adapter(#[from] AdapterError),
    /// A file that is not as it was written.
    #[error("checkpoint {} is damaged: {reason}; remove it to go on from the one before", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The checkpoint of another model.
    #[error("checkpoint {} is of another {what}; choose another output folder, or the recipe it was made with", path.display())]
    Other {
        /// The checkpoint.
        path: PathBuf,
        /// What differs, and how.
        what: String,
    },
}

impl RunError {
    /// Whether what is read is at fault, and the updates made so far are good.
    pub(super) fn is_about_data(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Validation { .. } | Self::Sample { .. })
    }
}

/// Where the batch of an update that was not made is.
fn what_is_kept(kept: &Result<PathBuf, CheckpointError>) -> String {
    match kept {
        Ok(folder) => format!("the batch and the weights before it are in {}", folder.display()),
        Err(e) => format!("the batch and the weights before it could not be kept ({e})"),
    }
}

/// Says which file an error of the system concerns.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> RunError {
    let path = path.to_owned();
    move |source| RunError::Io { path, source }
}
