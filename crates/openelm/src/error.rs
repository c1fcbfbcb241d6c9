//! What can go wrong.

use openelm_formats::FormatError;
use openelm_model::{ChatError, EngineError, GenerationError, MemoryError};

/// A model that cannot be opened, or text that it cannot take. The message is one sentence, for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files are not there, damaged, or of a kind that cannot be read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The model and a session would not fit into memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The adapter was made for another model.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model does not say how it reads conversations, or not in a way that can be followed.
    #[error("{0}")]
    NoTemplate(String),
    /// A chat template that is none, or that refuses a conversation.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The prompt or the options do not suit the model.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}
