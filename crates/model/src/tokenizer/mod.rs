//! Text to token ids and back.

mod detokenizer;
mod pieces;
mod supported;

use std::path::{Path, PathBuf};

use kitoken::Kitoken;
use kitoken::convert::{convert_sentencepiece, convert_tokenizers};
use serde_json::Value;

pub use detokenizer::Detokenizer;
use pieces::Vocabulary;

/// A tokenizer that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The system cannot read the file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder has no tokenizer in it.
    #[error("{} holds neither tokenizer.model nor tokenizer.json; give the file with --tokenizer", path.display())]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// The bytes are no tokenizer, or one of a kind that is not supported.
    #[error("not a usable tokenizer: {reason}")]
    Unusable {
        /// What is wrong.
        reason: String,
    },
    /// Both, for a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<TokenizerError>,
    },
}

fn unusable(reason: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Unusable { reason: reason.to_string() }
}

/// A tokenizer: LLaMA's SentencePiece models and their like, or a Hugging Face `tokenizer.json`.
///
/// ```
/// # let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tokenizer_small/tokenizer.model"))?;
/// let tokenizer = openelm_model::Tokenizer::from_sentencepiece(&bytes)?;
/// let ids = tokenizer.encode("Once upon a time");
/// assert_eq!(tokenizer.decode(&ids), "Once upon a time");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tokenizer {
    encoder: Kitoken,
    vocabulary: Vocabulary,
}

impl Tokenizer {
    /// Reads the bytes of a SentencePiece `.model`.
    ///
    /// # Errors
    /// If they are no such model, or of a kind that is not supported.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::from_sentencepiece(bytes)?;
        let definition = convert_sentencepiece(bytes).map_err(unusable)?;
        let encoder = Kitoken::try_from(definition).map_err(unusable)?;
        Ok(Self { encoder, vocabulary })
    }

    /// Reads the text of a Hugging Face `tokenizer.json` with byte fallback, as LLaMA's is.
    ///
    /// # Errors
    /// If it is no such file, or of a kind that is not supported.
    pub fn from_tokenizer_json(text: &[u8]) -> Result<Self, TokenizerError> {
        let json: Value =
            serde_json::from_slice(text).map_err(|e| unusable(format_args!("not a tokenizer.json: {e}")))?;
        let vocabulary = Vocabulary::from_tokenizer_json(&json)?;
        let parts = supported::encoding_parts(&json)?;
        let definition = convert_tokenizers(parts.to_string()).map_err(unusable)?;
        let encoder = Kitoken::try_from(definition).map_err(unusable)?;
        Ok(Self { encoder, vocabulary })
    }

    /// The tokenizer's file at `path`: itself, or the `tokenizer.model` or `tokenizer.json` in a folder.
    ///
    /// # Errors
    /// If it is a folder without either.
    pub fn find(path: &Path) -> Result<PathBuf, TokenizerError> {
        if !path.is_dir() {
            return Ok(path.to_owned());
        }
        let candidates = ["tokenizer.model", "tokenizer.json"].map(|name| path.join(name));
        let found = candidates.into_iter().find(|file| file.exists());
        found.ok_or_else(|| TokenizerError::NoTokenizer { path: path.to_owned() })
    }

    /// Reads `path`: a `.model` or `.json` file, or a folder with a `tokenizer.model` or `tokenizer.json`.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let file = Self::find(path)?;
        let bytes = std::fs::read(&file).map_err(|source| TokenizerError::Io { path: file.clone(), source })?;
        let is_json = file.extension().is_some_and(|extension| extension == "json");
        let tokenizer = if is_json { Self::from_tokenizer_json(&bytes) } else { Self::from_sentencepiece(&bytes) };
        tokenizer.map_err(|source| TokenizerError::File { path: file, source: Box::new(source) })
    }

    /// The ids of `text`, without BOS and EOS. Spellings of control tokens in the text are plain text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        // Encoding fails only where a character has neither a piece nor bytes nor an unknown token.
        self.encoder.encode(text, false).unwrap_or_default()
    }

    /// The ids of `text`, between BOS and EOS where asked for and where the tokenizer has them.
    pub fn encode_with(&self, text: &str, bos: bool, eos: bool) -> Vec<u32> {
        let mut ids = Vec::new();
        ids.extend(self.bos_id().filter(|_| bos));
        ids.extend(self.encode(text));
        ids.extend(self.eos_id().filter(|_| eos));
        ids
    }

    /// The text of `ids`, as SentencePiece decodes it: control tokens vanish, bytes that are no UTF-8 become U+FFFD, and
    /// the space that stands before the first word goes. Ids beyond the vocabulary are passed over.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut detokenizer = self.detokenizer();
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.finish());
        text
    }

    /// Decodes a stream of ids from its beginning.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(&self.vocabulary)
    }

    /// Number of pieces.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.pieces.len()
    }

    /// Id of the token that begins a text.
    pub fn bos_id(&self) -> Option<u32> {
        self.vocabulary.bos
    }

    /// Id of the token that ends a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.vocabulary.eos
    }

    /// Id of the token for what has no other.
    pub fn unk_id(&self) -> Option<u32> {
        self.vocabulary.unk
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}
