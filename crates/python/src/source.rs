//! The model that long work is for: one that is open, or where one is.

use std::path::PathBuf;

use openelm_formats::{FormatError, StoredModel};
use pyo3::prelude::*;

use crate::model::Model;

/// A model that is open, or the path of one; what reads all of it opens it by itself.
#[derive(FromPyObject)]
pub enum Source {
    /// Opened with `openelm.load`.
    Open(Py<Model>),
    /// Where it is.
    Path(PathBuf),
}

impl Source {
    /// Where the model is, and its tokenizer's file: the one that is given, or the one that it was opened with.
    pub fn places(self, tokenizer: Option<PathBuf>) -> (PathBuf, Option<PathBuf>) {
        match self {
            Self::Open(model) => {
                let Model { path, tokenizer: own, .. } = model.get();
                (path.clone(), tokenizer.or_else(|| own.clone()))
            }
            Self::Path(path) => (path, tokenizer),
        }
    }
}

/// The model at such a place, not loaded yet.
pub fn stored((path, tokenizer): &(PathBuf, Option<PathBuf>)) -> Result<StoredModel, FormatError> {
    openelm::stored(path, tokenizer.as_deref())
}
