//! What can stop a benchmark.

use std::path::PathBuf;

use openelm_formats::FormatError;
use openelm_model::{EngineError, MemoryError, ModelError};

/// A benchmark that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model cannot be read, or not be written in the format asked for.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The weights do not fit the geometry.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokens do not fit the session.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The scratch folder cannot be used.
    #[error("{}: {source}", path.display())]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The model would not fit into memory.
    #[error("{source}{}", if *.with_peer { " (half of the memory is left to llama-bench)" } else { "" })]
    Memory {
        /// Whether half of the memory is set aside for the peer.
        with_peer: bool,
        /// The numbers.
        source: MemoryError,
    },
    /// The peer cannot be run, or says nothing of use.
    #[error("{}: {reason}", program.display())]
    Peer {
        /// Its program.
        program: PathBuf,
        /// What is wrong.
        reason: String,
    },
}
