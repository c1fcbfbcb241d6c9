//! What can be wrong with a tuning run.

use std::io;
use std::path::PathBuf;

use openelm_formats::FormatError;
use openelm_model::{AdapterError, ModelError};

use crate::data::DataError;

/// A tuning run that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A row cannot be read, or is no example; the message names it.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model, its tokenizer or an adapter cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The weights make no model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The adapter does not fit the model.
    #[error("adapter: {0}")]
    Adapter(#[from] AdapterError),
    /// The system could not do what was asked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is a file where checkpoints and logs would go.
    #[error("{} is a file; output is a folder", .0.display())]
    Output(PathBuf),
    /// No example is left to learn from, or to measure.
    #[error("{what} has no example: {reason}")]
    Empty {
        /// `data.sources` or `data.validation`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A target that no module has.
    #[error("adapter.targets: {name:?} matches no module of the model; there are {known}")]
    Target {
        /// The name.
        name: String,
        /// What there is.
        known: String,
    },
    /// Numbers of a recipe that do not suit the model.
    #[error("{key} is {value}; {expected}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        expected: String,
    },
    /// The run goes on with other examples or another model than it began with.
    #[error("the run cannot go on: {what} not what it was; go back to what it was, or choose another output folder")]
    Changed {
        /// What is different.
        what: &'static str,
    },
    /// Log-probabilities of the reference that are not those of these examples.
    #[error("{}: {reason}; remove it to have it made again", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Somebody wants the work to stop before the first update.
    #[error("stopped before the first update; the same command begins again")]
    Stopped,
}
