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
    /// A folder without a file whose name tells its format.
    #[error(
        "{folder} holds no file of a corpus: their names end in .txt, .md, .text, .jsonl, .json, .ndjson or .parquet, the first \
         six with .gz or .zst behind or not{}",
        others(found)
    )]
    NoneInFolder {
        /// The folder.
        folder: String,
        /// Some of the files in it.
        found: Vec<PathBuf>,
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
    /// A row that is not what it should be.
    #[error("{}, row {row}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        row: u64,
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
    #[error("the corpus changed: {change}; {}", what_to_do(*accepts))]
    Changed {
        /// What is different.
        change: String,
        /// Whether the recipe accepts that a file changes between one start of the run and the next.
        accepts: bool,
    },
    /// A corpus that is read in another way than the run began with, or from another number of files.
    #[error("the run cannot go on with this corpus: {change}; go back to what it was, or choose another output folder")]
    Other {
        /// What is different.
        change: String,
    },
}

impl DataError {
    /// Whether it is a file that cannot be read, rather than the way to it or the corpus as a whole.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::File { .. }) || self.is_one()
    }

    /// This error, told to someone whose recipe accepts that files change, or does not.
    pub(super) fn accepted(self, accepts: bool) -> Self {
        match self {
            Self::Changed { change, .. } => Self::Changed { change, accepts },
            other => other,
        }
    }

    /// Whether it is a single document that is damaged, and those behind it can be read.
    pub(super) fn is_one(&self) -> bool {
        matches!(self, Self::Line { .. } | Self::Row { .. })
    }
}

fn others(found: &[PathBuf]) -> String {
    match found {
        [] => String::new(),
        found => format!(
            "; there are {}",
            found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn what_to_do(accepts: bool) -> &'static str {
    match accepts {
        true => "the same command goes on with what is there now, as data.on_change says",
        false => "put it back, go on with what is there now (data.on_change = \"accept\"), or start a new run",
    }
}
