//! What a library that was made small says of files of CoreNet's.

use std::path::Path;

use openelm_model::kernels::Threads;
use openelm_model::{DType, ModelConfig, Tensor, TensorSpec};

use crate::{FormatError, StoredModel};

fn left_out(path: &Path) -> FormatError {
    let reason = "it is CoreNet's or none that is known, and this library was built without the feature corenet; convert the                   model with `openelm convert` or make a bundle of it";
    FormatError::Config { path: path.to_owned(), reason: reason.to_owned() }
}

/// Refuses the model at `path`.
///
/// # Errors
/// Always.
pub fn read(path: &Path) -> Result<StoredModel, FormatError> {
    Err(left_out(path))
}

/// Refuses to write into `folder`.
///
/// # Errors
/// Always.
pub fn write(
    folder: &Path,
    _config: &ModelConfig,
    _tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    _dtype: DType,
    _threads: &Threads,
) -> Result<(), FormatError> {
    Err(left_out(folder))
}

/// Refuses the file at `path`.
pub(crate) fn check_whole(path: &Path) -> Result<(), FormatError> {
    Err(left_out(path))
}
