//! Models by the name that they were pulled by.

use std::path::{Path, PathBuf};

use anyhow::Result;

/// The file or folder at `path`, or else the folder of the model that was pulled by that name.
#[cfg(feature = "hub")]
pub fn located(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    Ok(openelm_hub::resolve(&path.to_string_lossy(), &openelm_hub::Settings::from_environment()?)?)
}

/// Without the feature `hub` nothing is pulled: the path itself.
#[cfg(not(feature = "hub"))]
pub fn located(path: &Path) -> Result<PathBuf> {
    Ok(path.to_owned())
}
