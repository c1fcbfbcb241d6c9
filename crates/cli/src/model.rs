//! The model and tokenizer that a command works with: from a folder, or the one compiled in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use openelm::Tokenizer;
use openelm_formats::{FormatError, StoredModel, huggingface};

const CONFIG: &[u8] = include_bytes!("../../../models/storyteller/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../models/storyteller/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../models/storyteller/tokenizer.model");

/// The name that the built-in model goes by.
pub const BUILTIN: &str = "builtin";

/// Which model a command works with.
#[derive(Args)]
pub struct ModelOptions {
    /// Folder with a model [default: the one built in]
    #[arg(long, short, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Tokenizer, if it is not in the model's folder
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl ModelOptions {
    /// The model, not loaded yet, and its tokenizer.
    pub fn open(&self) -> Result<(StoredModel, Tokenizer)> {
        let path = self.model.as_deref().unwrap_or(Path::new(BUILTIN));
        let (model, tokenizer) = (open(path)?, load_tokenizer(self.tokenizer.as_deref().unwrap_or(path))?);
        let (pieces, rows) = (tokenizer.vocab_size(), model.config.vocab_size);
        // Fewer pieces than rows is common: vocabularies are padded.
        anyhow::ensure!(
            pieces <= rows,
            "the tokenizer has {pieces} pieces but the model only {rows}; they do not belong together"
        );
        Ok((model, tokenizer))
    }
}

/// The model in `path`, or the built-in one for the name `builtin`; not loaded yet.
pub fn open(path: &Path) -> Result<StoredModel, FormatError> {
    if path == Path::new(BUILTIN) {
        // A copy: the bytes in the binary need not be aligned for their numbers.
        return huggingface::from_bytes(CONFIG, Bytes::copy_from_slice(WEIGHTS), "the built-in model");
    }
    openelm_formats::open(path)
}

/// The tokenizer in `path`, or the built-in one for the name `builtin`.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    if path == Path::new(BUILTIN) {
        return Tokenizer::from_sentencepiece(TOKENIZER).context("the built-in tokenizer");
    }
    Ok(Tokenizer::open(path)?)
}
