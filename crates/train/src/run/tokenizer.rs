//! How the text of a run becomes ids.

use std::path::Path;
use std::sync::Arc;

use openelm_model::Tokenizer;
use sha2::{Digest, Sha256};

use super::error::{RunError, at};

/// The tokenizer of a run and the file that every checkpoint takes along.
#[derive(Clone)]
pub struct RunTokenizer {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    pub(super) file_name: String,
    pub(super) bytes: Arc<[u8]>,
    /// Of its file, in hexadecimal.
    pub(super) sha256: String,
}

impl RunTokenizer {
    /// Opens the `.model` or `tokenizer.json` file at `path`, or the one in the folder `path`.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let path = Tokenizer::find(path)?;
        let tokenizer = Arc::new(Tokenizer::open(&path)?);
        let bytes = std::fs::read(&path).map_err(at(&path))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let file_name = if is_json { "tokenizer.json" } else { "tokenizer.model" }.to_owned();
        Ok(Self { tokenizer, file_name, sha256: sha256_hex(&bytes), bytes: bytes.into() })
    }
}

/// SHA-256 of `bytes` in hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
