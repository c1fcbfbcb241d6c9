//! The models and tokenizers that commands work with: of any format, or the ones compiled in.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use openelm::{Model, Tokenizer};
use openelm_formats::{FormatError, StoredModel, StoredTokenizer, huggingface};

const CONFIG: &[u8] = include_bytes!("../../../models/storyteller/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../models/storyteller/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../models/storyteller/tokenizer.model");

/// The name that stands for the model compiled in.
const BUILTIN: &str = "builtin";

/// Which model a command works with.
#[derive(Args)]
pub struct ModelOptions {
    /// A model of any format, folder or file [default: the one built in]
    #[arg(long, short, value_name = "MODEL", default_value = BUILTIN, hide_default_value = true)]
    model: PathBuf,
    /// Tokenizer, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

impl ModelOptions {
    pub fn load(&self) -> Result<(Model, Tokenizer)> {
        let stored = open(&self.model, self.tokenizer.as_deref())?;
        let tokenizer = tokenizer_of(&stored)?;
        let (pieces, rows) = (tokenizer.vocab_size(), stored.config.vocab_size);
        // Fewer pieces than rows is common: vocabularies are padded.
        anyhow::ensure!(
            pieces <= rows,
            "the tokenizer has {pieces} pieces but the model only {rows}; they do not belong together"
        );
        Ok((stored.into_model()?, tokenizer))
    }
}

/// The model at `path`, or the built-in one for the name `builtin`; with another tokenizer than its own if one is given.
pub fn open(path: &Path, tokenizer: Option<&Path>) -> Result<StoredModel> {
    let mut model = if path == Path::new(BUILTIN) { builtin()? } else { openelm_formats::open(path)? };
    if let Some(file) = tokenizer {
        model.tokenizer = Some(StoredTokenizer::File(file.to_owned()));
    }
    Ok(model)
}

/// The tokenizer that comes with `model`.
pub fn tokenizer_of(model: &StoredModel) -> Result<Tokenizer> {
    let missing = || FormatError::NoTokenizer { path: model.path.clone(), what: "" };
    Ok(model.tokenizer.as_ref().ok_or_else(missing)?.open()?)
}

/// The tokenizer at `path`: a tokenizer's file, that of the model there, or the built-in one for the name `builtin`.
pub fn load_tokenizer(path: &Path) -> Result<Tokenizer> {
    let is_model = path == Path::new(BUILTIN) || path.extension().is_some_and(|extension| extension == "gguf");
    if is_model { tokenizer_of(&open(path, None)?) } else { Ok(Tokenizer::open(path)?) }
}

fn builtin() -> Result<StoredModel> {
    // A copy, once: the bytes in the binary need not be aligned for their numbers.
    let weights = Bytes::copy_from_slice(WEIGHTS);
    let mut model = huggingface::from_bytes(CONFIG, weights, BUILTIN).context("the built-in model")?;
    model.tokenizer = Some(StoredTokenizer::SentencePiece(Bytes::from_static(TOKENIZER)));
    Ok(model)
}
