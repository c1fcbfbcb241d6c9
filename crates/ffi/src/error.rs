//! Errors as values, and the border that no panic crosses.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What went wrong: one sentence for a person, and a kind for a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Error), uniffi(flat_error))]
pub enum OpenElmError {
    /// A model, tokenizer or adapter is missing, damaged, or of another model.
    #[error("{0}")]
    File(String),
    /// There is too little memory.
    #[error("{0}")]
    Memory(String),
    /// A prompt, an id or an option that does not suit the model.
    #[error("{0}")]
    Input(String),
    /// The session is generating.
    #[error("the session is generating a text; read it to its end or cancel it first")]
    Busy,
    /// The system gives no thread.
    #[error("the system gives no thread to generate on: {0}")]
    Thread(String),
    /// A defect of this library, caught where it would have left it.
    #[error("a defect of openelm, please report it: {0}")]
    Defect(String),
}

impl From<openelm::Error> for OpenElmError {
    fn from(error: openelm::Error) -> Self {
        let sentence = error.to_string();
        match error {
            openelm::Error::Memory(_) => Self::Memory(sentence),
            openelm::Error::Generation(_) | openelm::Error::Engine(_) | openelm::Error::Chat(_) => {
                Self::Input(sentence)
            }
            openelm::Error::Format(_) | openelm::Error::NoTemplate(_) => Self::File(sentence),
        }
    }
}

impl From<openelm::GenerationError> for OpenElmError {
    fn from(error: openelm::GenerationError) -> Self {
        Self::Input(error.to_string())
    }
}

/// Runs `work`; a panic in it becomes an error.
///
/// # Errors
/// What `work` reports, or that it panicked.
pub fn guard<T>(work: impl FnOnce() -> Result<T, OpenElmError>) -> Result<T, OpenElmError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(OpenElmError::Defect(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}
