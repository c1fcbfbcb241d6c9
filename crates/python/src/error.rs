//! Errors as Python raises them: the classes are in `openelm/errors.py`.

use openelm_ffi::OpenElmError;
use pyo3::prelude::*;

/// The exception for `error`.
pub fn raised(py: Python<'_>, error: &OpenElmError) -> PyErr {
    let class = match error {
        OpenElmError::File(_) => "ModelFileError",
        OpenElmError::Memory(_) => "OutOfMemoryError",
        OpenElmError::Input(_) => "InputError",
        OpenElmError::Busy => "BusyError",
        OpenElmError::Thread(_) | OpenElmError::Defect(_) => "OpenElmError",
    };
    exception(py, class, error.to_string())
}

/// An exception of the class `class` with a sentence.
pub fn exception(py: Python<'_>, class: &str, sentence: String) -> PyErr {
    let made = || py.import("openelm.errors")?.getattr(class)?.call1((sentence,));
    made().map_or_else(|error| error, PyErr::from_value)
}

/// Does `work` while other Python threads run.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, OpenElmError> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| raised(py, &error))
}
