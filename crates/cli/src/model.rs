//! The models and tokenizers that commands work with: of any format, pulled, or the ones compiled in.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
pub use openelm::BUILTIN;
use openelm::stored;
use openelm_formats::{FormatError, StoredModel, StoredTokenizer};
use openelm_model::Tokenizer;

use crate::pulled::located;

/// Which model a command works with.
#[derive(Args)]
pub struct ModelOptions {
    /// A model of any format, folder or file, or the name it was pulled by [default: the one built in]
    #[arg(long, short, value_name = "MODEL", default_value = BUILTIN, hide_default_value = true)]
    model: PathBuf,
    /// Tokenizer, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl ModelOptions {
    /// The model, not loaded yet, and its tokenizer.
    pub fn open(&self) -> Result<(StoredModel, Tokenizer)> {
        let model = open(&self.model, self.tokenizer.as_deref())?;
        let tokenizer = model.open_tokenizer()?;
        Ok((model, tokenizer))
    }

    /// The model alone, where it is opened again.
    pub fn stored(&self) -> Result<StoredModel, FormatError> {
        stored(&locate(&self.model).unwrap_or_else(|_| self.model.clone()), None)
    }
}

/// The model at `path` or pulled by that name, or the built-in one for the name `builtin`, not loaded yet; with another
/// tokenizer than its own if one is given.
pub fn open(path: &Path, tokenizer: Option<&Path>) -> Result<StoredModel> {
    Ok(stored(&locate(path)?, tokenizer)?)
}

/// Where the model is that `path` names: there, or where it was pulled to.
pub fn locate(path: &Path) -> Result<PathBuf> {
    if path == Path::new(BUILTIN) { Ok(path.to_owned()) } else { located(path) }
}

/// The tokenizer at `path`: a tokenizer's file, that of the model there or pulled by that name, or the built-in one for the
/// name `builtin`.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    if path == Path::new(BUILTIN) || path.extension().is_some_and(|extension| extension == "gguf") {
        return Ok(open(path, None)?.open_tokenizer()?);
    }
    Ok(StoredTokenizer::File(located(path)?).open()?)
}
