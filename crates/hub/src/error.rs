//! What can go wrong between a name and a model on the disk.

use std::io;
use std::path::{Path, PathBuf};

/// A model that cannot be pulled or found; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A name that names no model.
    #[error("{name:?} names no model; `openelm pull --list` shows the names there are")]
    Name {
        /// What was given.
        name: String,
    },
    /// Neither a path nor a model that was pulled.
    #[error("{name} is neither a file or folder nor a model that was pulled; {advice}")]
    NotHere {
        /// What was given.
        name: String,
        /// How to get it.
        advice: String,
    },
    /// The hub does not know the repository, or hides it.
    #[error("{endpoint} has no model {name}; check its name (a private model needs a token: set HF_TOKEN)")]
    NoRepository {
        /// The hub.
        endpoint: String,
        /// The repository and revision.
        name: String,
    },
    /// A data set without the split that is wanted.
    #[error("the data set {name} has no {config}/{split} in Parquet on the hub; it has {there}")]
    NoSplit {
        /// The data set.
        name: String,
        /// The configuration.
        config: String,
        /// The split.
        split: String,
        /// The configurations and splits there are.
        there: String,
    },
    /// The server wants to know who asks, or refuses them.
    #[error("{url} is refused (status {status}); {advice}")]
    Refused {
        /// The address.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What to do.
        advice: &'static str,
    },
    /// There is no such file.
    #[error("{url} is not there (status 404); check the name")]
    NotFound {
        /// The address.
        url: String,
    },
    /// The server cannot answer, now or at all.
    #[error("{url} answers with status {status}; try again later")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// No answer at all.
    #[error("{url} cannot be reached: {reason}")]
    Connection {
        /// The address.
        url: String,
        /// What the network says.
        reason: String,
    },
    /// An answer that is not what it should be.
    #[error("{url} gives a wrong answer: {reason}")]
    Answer {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The network is needed and not wanted.
    #[error("{name} is not here in full, and HF_HUB_OFFLINE forbids to fetch it; unset that and pull again")]
    Offline {
        /// The model.
        name: String,
    },
    /// The transfer ended too soon.
    #[error("{file} broke off after {received} of {} bytes ({reason}); {}", known(*.size), go_on(*.kept))]
    BrokeOff {
        /// The file.
        file: String,
        /// Bytes that are here.
        received: u64,
        /// Bytes there should be, if that is known.
        size: Option<u64>,
        /// What the network says.
        reason: String,
        /// Whether the next attempt can begin where this one ended.
        kept: bool,
    },
    /// The server tells another length than the one that is known.
    #[error("{file} should have {expected} bytes, but {url} sends {found}; try again later, or from another place")]
    Length {
        /// The file.
        file: String,
        /// The address.
        url: String,
        /// Bytes as they are known.
        expected: u64,
        /// Bytes that the server announces.
        found: u64,
    },
    /// Bytes that are not the file.
    #[error(
        "{file} is not the file it should be: its {kind} is {found}, not {expected}; it was removed, the same command \
         fetches it anew"
    )]
    Hash {
        /// The file.
        file: String,
        /// Which hash.
        kind: &'static str,
        /// What is known.
        expected: String,
        /// What came.
        found: String,
    },
    /// Bytes that are no whole file of its kind, where no hash is known.
    #[error("{file} is not the file it should be: {reason}; it was removed, the same command fetches it anew")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A repository without weights that can be read.
    #[error("{name} holds no weights that can be read; .safetensors, .gguf and .pt files can")]
    NoWeights {
        /// The repository.
        name: String,
    },
    /// A repository with several models in it.
    #[error("{name} holds several models; choose with --file: {files}")]
    Choice {
        /// The repository.
        name: String,
        /// The files to choose from.
        files: String,
    },
    /// A pattern that matches no file.
    #[error("{name} has no file {pattern}; it has {files}")]
    NoSuchFile {
        /// The repository.
        name: String,
        /// What was asked for.
        pattern: String,
        /// What there is.
        files: String,
    },
    /// The model came, its tokenizer did not.
    #[error(
        "the model is here, but its tokenizer is not: {error}; pull again, name another one with --tokenizer, or go without with --no-tokenizer"
    )]
    Tokenizer {
        /// Why.
        error: Box<HubError>,
    },
    /// Another process fetches the same file.
    #[error("{file} is being fetched by another process; wait for it, or stop it")]
    Busy {
        /// The file.
        file: String,
    },
    /// The disk is full, or fails, in the middle of a file.
    #[error("{}: {source}; once that is mended, the same command goes on", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system could not do what was asked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no place for models.
    #[error("there is no home folder to keep models in; set HF_HOME to a folder")]
    NoHome,
}

impl HubError {
    /// Says which file an error of the system concerns.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| HubError::Io { path, source }
    }

    /// Whether a second attempt might fare better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            HubError::Connection { .. } | HubError::BrokeOff { .. } => true,
            HubError::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

fn known(size: Option<u64>) -> String {
    size.map_or("an unknown number of".to_owned(), |size| size.to_string())
}

fn go_on(kept: bool) -> &'static str {
    if kept { "the same command goes on from there" } else { "the same command begins it anew" }
}
