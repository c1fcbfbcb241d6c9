//! The model and tokenizer that a command works with: from a folder, or the one compiled in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use openelm::{Model, Tokenizer};
use openelm_formats::huggingface;

use crate::pulled::located;

const CONFIG: &[u8] = include_bytes!("../../../models/storyteller/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../models/storyteller/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../models/storyteller/tokenizer.model");

/// Which model a command works with.
#[derive(Args)]
pub struct ModelOptions {
    /// Folder with a model, or the name it was pulled by [default: the one built in]
    #[arg(long, short, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Tokenizer, if it is not in the model's folder
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl ModelOptions {
    pub fn load(&self) -> Result<(Model, Tokenizer)> {
        let (model, tokenizer) = match (&self.model, &self.tokenizer) {
            (None, None) => (builtin_model()?, builtin_tokenizer()?),
            (None, Some(file)) => (builtin_model()?, Tokenizer::open(file)?),
            (Some(folder), file) => (load(folder)?, load_tokenizer(file.as_ref().unwrap_or(folder))?),
        };
        let (pieces, rows) = (tokenizer.vocab_size(), model.config().vocab_size);
        // Fewer pieces than rows is common: vocabularies are padded.
        anyhow::ensure!(
            pieces <= rows,
            "the tokenizer has {pieces} pieces but the model only {rows}; they do not belong together"
        );
        Ok((model, tokenizer))
    }
}

/// The model in `path` or pulled by that name, or the built-in one for the name `builtin`.
pub fn load(path: &Path) -> Result<Model> {
    if path == Path::new("builtin") {
        return builtin_model();
    }
    Ok(huggingface::read(&located(path)?)?.into_model()?)
}

/// The tokenizer in `path` or pulled with that model, or the built-in one for the name `builtin`.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    if path == Path::new("builtin") {
        return builtin_tokenizer();
    }
    Ok(Tokenizer::open(&located(path)?)?)
}

fn builtin_model() -> Result<Model> {
    // A copy, once: the bytes in the binary need not be aligned for their numbers.
    let weights = Bytes::copy_from_slice(WEIGHTS);
    Ok(huggingface::from_bytes(CONFIG, weights, "the built-in model")?.into_model()?)
}

fn builtin_tokenizer() -> Result<Tokenizer> {
    Tokenizer::from_sentencepiece(TOKENIZER).context("the built-in tokenizer")
}
