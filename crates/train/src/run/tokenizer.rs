//! How the text of a run becomes ids.

use std::path::Path;
use std::sync::Arc;

use openelm_formats::StoredTokenizer;
use openelm_model::Tokenizer;
use sha2::{Digest, Sha256};

use super::error::{RunError, at};
use crate::tune::TuneError;

/// The tokenizer of a run and the file that every checkpoint takes along.
#[derive(Clone)]
pub struct RunTokenizer {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    pub(super) file_name: String,
    pub(super) bytes: Arc<[u8]>,
    /// What other tools want beside it, by their names.
    companions: Arc<[(String, Vec<u8>)]>,
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
        let tokenizer = StoredTokenizer::File(path.clone()).open().map_err(RunError::TokenizerFile)?;
        let bytes = std::fs::read(&path).map_err(at(&path))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let file_name = if is_json { "tokenizer.json" } else { "tokenizer.model" }.to_owned();
        let (tokenizer, sha256) = (Arc::new(tokenizer), sha256_hex(&bytes));
        Ok(Self { tokenizer, file_name, sha256, bytes: bytes.into(), companions: Arc::new([]) })
    }

    /// The tokenizer of a model, with what lies beside it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(stored: &StoredTokenizer) -> Result<Self, TuneError> {
        let tokenizer = Arc::new(stored.open()?);
        let copies = tempfile::tempdir();
        let copies = copies.map_err(|source| TuneError::Io { path: std::env::temp_dir(), source })?;
        stored.copy_into(copies.path())?;
        let mut files = Vec::new();
        let read = |files: &mut Vec<(String, Vec<u8>)>| -> std::io::Result<()> {
            for entry in std::fs::read_dir(copies.path())? {
                let entry = entry?;
                files.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
            }
            Ok(())
        };
        read(&mut files).map_err(|source| TuneError::Io { path: copies.path().to_owned(), source })?;
        files.sort();
        let own = ["tokenizer.model", "tokenizer.json"];
        let own = own.iter().find_map(|name| files.iter().position(|(file, _)| file == name));
        let (file_name, bytes) = match own {
            Some(index) => files.remove(index),
            None => ("tokenizer.model".to_owned(), Vec::new()),
        };
        Ok(Self { tokenizer, file_name, sha256: sha256_hex(&bytes), bytes: bytes.into(), companions: files.into() })
    }

    /// All files, by their names.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let companions = self.companions.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]));
        companions.chain([(self.file_name.as_str(), &self.bytes[..])])
    }
}

/// SHA-256 of `bytes` in hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
