//! What can be wrong with a corpus.

use std::path::PathBuf;

/// A corpus that cannot be read; the message names the file and the place in it.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A path or pattern that matches nothing.
    #[error("no file matches {pattern}; check the path of this source")]
    NoFiles {
        /// The pattern.
        pattern: String,
    },
    /// A pattern that cannot be understood.
    #[error("{pattern} is not a pattern for files: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
    /// A name that says nothing of the content.
    #[error("{}: cannot tell the format from the name; set format = \"text\", \"jsonl\" or \"parquet\"", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be read, or is not what its name says.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line that is not what it should be.
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// An object store that cannot be read.
    #[error("{url}: {reason}")]
    Store {
        /// The object, or the pattern.
        url: String,
        /// What the store, or the way to it, says.
        reason: String,
    },
    /// Weights that make no mix.
    #[error("the sources cannot be mixed: {reason}")]
    Weights {
        /// What is wrong.
        reason: String,
    },
    /// A thread that could not be started, or that ended before its work was done.
    #[error("the corpus cannot be read further: {reason}")]
    Worker {
        /// What happened.
        reason: String,
    },
    /// Files without a single document.
    #[error("{sources}: these files hold no document; check the path and text_key of this source")]
    NoDocuments {
        /// The paths of the sources that are read as one.
        sources: String,
    },
    /// A corpus without a single row to train on.
    #[error("the corpus yields no row of {tokens} tokens after filtering; bring more text or shorten sequence_length")]
    Empty {
        /// Tokens that a row needs.
        tokens: usize,
    },
    /// Other files than those that the run began with.
    #[error(
        "the corpus changed: {change}; put it back, go on with what is there now (data.on_change = \"accept\"), or start a \
         new run"
    )]
    Changed {
        /// What is different.
        change: String,
    },
}

impl DataError {
    /// Whether it is a file that cannot be read, rather than the way to it or the corpus as a whole.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Line { .. })
    }
}
