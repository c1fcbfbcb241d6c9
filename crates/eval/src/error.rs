//! What can go wrong, in one sentence each.

use std::path::{Path, PathBuf};

use openelm_formats::FormatError;
use openelm_model::EngineError;

/// An evaluation that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The system cannot read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A declaration of a task or group that makes none.
    #[error("task file {file}: {reason}")]
    Task {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A name that no task or group has.
    #[error("there is no task or group {name:?}{}; `openelm eval --list` shows all", .nearest.as_ref().map(|nearest| format!(", perhaps {nearest:?}")).unwrap_or_default())]
    UnknownTask {
        /// The name.
        name: String,
        /// The name that is most like it.
        nearest: Option<String>,
    },
    /// A data set that is in none of the places looked at.
    #[error("{task} has no {split} data: {reason}")]
    NoData {
        /// The task.
        task: String,
        /// The split.
        split: String,
        /// Where it was looked for, and what to do.
        reason: String,
    },
    /// A file of data that cannot be used as a whole.
    #[error("{}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A document that the task cannot be made of.
    #[error("{}, document {}: {reason}", path.display(), row + 1)]
    Document {
        /// The file.
        path: PathBuf,
        /// Its place in the file, from 0.
        row: usize,
        /// What is wrong.
        reason: String,
    },
    /// More examples than there are.
    #[error("{task} was asked for {wanted} shots, but {} has only {available} documents to draw them from", path.display())]
    Shots {
        /// The task.
        task: String,
        /// Documents to be drawn.
        wanted: usize,
        /// Documents there are.
        available: usize,
        /// Where they would come from.
        path: PathBuf,
    },
    /// A model without a token to begin with.
    #[error("the tokenizer has no token that begins or ends a text, which a request without context needs")]
    NoPrefix,
    /// Texts are to begin with a token that there is not.
    #[error("the tokenizer has no token that begins a text, and texts were to begin with one")]
    NoBos,
    /// The model cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Logits that are infinite or no numbers.
    #[error("the model's logits are not finite; it is damaged, or an activation left the range of its floats")]
    NotFinite,
    /// Tokens that the engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A results folder that does not fit.
    #[error("{}: {reason}", path.display())]
    Results {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A picture that the library refused to draw.
    #[error("the chart cannot be drawn: {0}")]
    Chart(String),
    /// The caller asked to stop.
    #[error("stopped; finished requests are kept in the output folder, if there is one")]
    Stopped,
}

impl EvalError {
    /// Says which file an error of the system concerns.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| EvalError::Io { path, source }
    }
}
