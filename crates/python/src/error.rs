//! Errors as Python raises them: the classes are in `openelm/errors.py`.

use openelm_eval::EvalError;
use openelm_ffi::OpenElmError;
use openelm_formats::FormatError;
use openelm_model::MemoryError;
use openelm_train::run::RunError;
use openelm_train::tune::TuneError;
use openelm_train::{RecipeError, TrainingMemoryError};
use pyo3::prelude::*;

/// What will be raised: a class of `openelm/errors.py` and its sentence, which is that of the command.
pub struct Failure {
    class: &'static str,
    sentence: String,
}

impl Failure {
    /// An option that does not suit.
    pub fn input(sentence: impl ToString) -> Self {
        Self { class: "InputError", sentence: sentence.to_string() }
    }

    /// The exception.
    pub fn raised(self, py: Python<'_>) -> PyErr {
        let made = || py.import("openelm.errors")?.getattr(self.class)?.call1((self.sentence,));
        made().map_or_else(|error| error, PyErr::from_value)
    }
}

/// Errors that are all of one class.
macro_rules! failures {
    ($($error:ty => $class:literal),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { class: $class, sentence: error.to_string() }
            }
        })+
    };
}

failures! {
    FormatError => "ModelFileError",
    MemoryError => "OutOfMemoryError",
    RecipeError => "InputError",
    TrainingMemoryError => "OutOfMemoryError",
}

impl From<OpenElmError> for Failure {
    fn from(error: OpenElmError) -> Self {
        let class = match error {
            OpenElmError::File(_) => "ModelFileError",
            OpenElmError::Memory(_) => "OutOfMemoryError",
            OpenElmError::Input(_) => "InputError",
            OpenElmError::Busy => "BusyError",
            OpenElmError::Thread(_) | OpenElmError::Defect(_) => "OpenElmError",
        };
        Self { class, sentence: error.to_string() }
    }
}

impl From<TuneError> for Failure {
    fn from(error: TuneError) -> Self {
        let class = match error {
            TuneError::Format(_) => "ModelFileError",
            TuneError::Data(_)
            | TuneError::Output(_)
            | TuneError::Empty { .. }
            | TuneError::Target { .. }
            | TuneError::Value { .. }
            | TuneError::Changed { .. } => "InputError",
            _ => "OpenElmError",
        };
        Self { class, sentence: error.to_string() }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Tune(error) => error.into(),
            error => Self { class: "OpenElmError", sentence: error.to_string() },
        }
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        let class = match error {
            EvalError::Format(_) => "ModelFileError",
            EvalError::Task { .. }
            | EvalError::UnknownTask { .. }
            | EvalError::NoData { .. }
            | EvalError::Data { .. }
            | EvalError::Document { .. }
            | EvalError::Shots { .. }
            | EvalError::NoBos
            | EvalError::NoPrefix => "InputError",
            _ => "OpenElmError",
        };
        Self { class, sentence: error.to_string() }
    }
}

/// Does `work` while other Python threads run.
pub fn detached<T: Send, E: Into<Failure> + Send>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> PyResult<T> {
    py.detach(work).map_err(|error| error.into().raised(py))
}
