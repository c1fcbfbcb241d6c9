//! What a model on disk is, in numbers.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use openelm_model::kernels::Threads;
use openelm_model::{CacheType, Encoding, Sequence};
use sha2::{Digest, Sha256};

use crate::convert::half_precision_warning;
use crate::fingerprint::hexadecimal;
use crate::{Format, FormatError, StoredModel, StoredTokenizer, bundle, finite};

/// A file that holds weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// A tokenizer in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizerSummary {
    /// Its file; `None` if it is within the weights' own.
    pub path: Option<PathBuf>,
    /// Number of pieces.
    pub pieces: usize,
    /// Id of the token that begins a text.
    pub bos: Option<u32>,
    /// Id of the token that ends a text.
    pub eos: Option<u32>,
}

/// What [`inspect`] finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// Parameters in all; a tied output projection counts once.
    pub parameters: usize,
    /// Every encoding with the number of tensors and of elements in it.
    pub encodings: Vec<(Encoding, usize, usize)>,
    /// Bytes of all weights.
    pub weight_bytes: usize,
    /// Bytes of the key/value cache when the context is full.
    pub cache_bytes: usize,
    /// The files that hold the weights.
    pub files: Vec<StoredFile>,
    /// The tokenizer, if there is one that can be read.
    pub tokenizer: Option<TokenizerSummary>,
    /// What was guessed, is odd or may go wrong, in sentences.
    pub warnings: Vec<String>,
}

/// Looks at a model: reads its files for their hashes, and all of its weights for those that are no numbers. The hash of a bundle's
/// weights is compared with what its manifest says.
///
/// # Errors
/// If a file cannot be read, or a bundle is not what its manifest says.
pub fn inspect(model: &StoredModel, threads: &Threads) -> Result<Inspection, FormatError> {
    let config = &model.config;
    let mut warnings = model.notes.clone();
    let stored = model.main_encoding();
    warnings.extend(stored.dtype().and_then(|dtype| half_precision_warning(config, dtype)));
    let tokenizer = match &model.tokenizer {
        None => {
            warnings.push("there is no tokenizer beside it; give one with --tokenizer".to_owned());
            None
        }
        Some(tokenizer) => match summary(tokenizer) {
            Ok(summary) => Some(summary),
            Err(e) => {
                warnings.push(e.to_string());
                None
            }
        },
    };
    if let Some(TokenizerSummary { pieces, .. }) = tokenizer {
        let rows = config.vocab_size;
        if pieces > rows {
            warnings.push(format!("the tokenizer has {pieces} pieces but the model only {rows} rows"));
        } else if pieces < rows {
            let spare = rows - pieces;
            warnings
                .push(format!("{spare} rows of the vocabulary have no piece; convert --trim-vocab={pieces} cuts them"));
        }
    }
    for spec in model.specs() {
        warnings.extend(finite::warning(&model.tensor(&spec.name)?, &spec.name, threads));
        model.release();
    }
    let files = model.files.iter().map(|path| stored_file(path).map_err(FormatError::io(path)));
    let files: Vec<StoredFile> = files.collect::<Result<_, _>>()?;
    if let (Format::Bundle, [weights]) = (model.format, &files[..]) {
        bundle::check_weights(&model.path, &weights.sha256)?;
    }
    Ok(Inspection {
        parameters: config.parameters(),
        encodings: model.encodings(),
        weight_bytes: model.size(),
        cache_bytes: Sequence::bytes(config, CacheType::default(), config.context_length),
        files,
        tokenizer,
        warnings,
    })
}

fn summary(stored: &StoredTokenizer) -> Result<TokenizerSummary, FormatError> {
    let tokenizer = stored.open()?;
    let path = match stored {
        StoredTokenizer::File(path) => Some(path.clone()),
        StoredTokenizer::SentencePiece(_) | StoredTokenizer::HuggingFace(_) => None,
    };
    let (bos, eos) = (tokenizer.bos_id(), tokenizer.eos_id());
    Ok(TokenizerSummary { path, pieces: tokenizer.vocab_size(), bos, eos })
}

pub(crate) fn stored_file(path: &Path) -> io::Result<StoredFile> {
    let mut hash = Sha256::new();
    let bytes = io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(StoredFile { path: path.to_owned(), bytes, sha256: hexadecimal(&hash.finalize()) })
}
