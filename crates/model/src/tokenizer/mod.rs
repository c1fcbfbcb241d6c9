//! Text to token ids and back.

mod added;
mod byte_level;
mod companions;
mod detokenizer;
mod hash;
mod huggingface;
mod merges;
mod pieces;
mod sentencepiece;
mod trie;
mod words;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use prost::Message;
use serde_json::Value;

use crate::sentencepiece::ModelProto;
use added::{AddedToken, AddedTokens, Part};
use companions::Companions;
pub use detokenizer::Detokenizer;
use huggingface::HuggingFace;
use pieces::Vocabulary;
use sentencepiece::SentencePiece;

/// How SentencePiece writes a space.
const SPACE: &str = "▁";
const SPACE_CHARACTER: char = '▁';

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

impl TokenizerError {
    /// The same, of the file at `path`.
    fn at(self, path: &Path) -> Self {
        TokenizerError::File { path: path.to_owned(), source: Box::new(self) }
    }
}

fn unusable(reason: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Unusable { reason: reason.to_string() }
}

/// A tokenizer: a SentencePiece model such as LLaMA's, or a Hugging Face `tokenizer.json`.
///
/// Ids are those of SentencePiece, or of the library `tokenizers`, for every file that opens: what is not followed is refused.
///
/// ```
/// # let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/tokenizer_small/tokenizer.model"))?;
/// let tokenizer = openelm_model::Tokenizer::from_sentencepiece(&bytes)?;
/// let ids = tokenizer.encode("Once upon a time");
/// assert_eq!(tokenizer.decode(&ids), "Once upon a time");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tokenizer {
    encoder: Encoder,
    vocabulary: Vocabulary,
    /// The control tokens of a SentencePiece model, which knows no spellings of them itself.
    control: Option<AddedTokens>,
    ends: Vec<u32>,
    adds_bos: bool,
}

enum Encoder {
    SentencePiece(SentencePiece),
    HuggingFace(HuggingFace),
}

/// What spellings of control tokens in a text are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Markup {
    /// Text like any other.
    Plain,
    /// Those tokens, unless this character, which is left out, stands within them.
    Control { mark: Option<char> },
}

impl Markup {
    /// Text between control tokens, without the mark.
    fn plain<'t>(self, text: &'t str) -> Cow<'t, str> {
        match self {
            Markup::Control { mark: Some(mark) } if text.contains(mark) => Cow::Owned(text.replace(mark, "")),
            _ => Cow::Borrowed(text),
        }
    }
}

impl Tokenizer {
    /// Reads the bytes of a SentencePiece `.model` of the type BPE or unigram.
    ///
    /// # Errors
    /// If they are no such model, or of a kind that is not supported.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let model = ModelProto::decode(bytes).map_err(|e| unusable(format_args!("not a SentencePiece model: {e}")))?;
        if model.pieces.is_empty() {
            return Err(unusable("the SentencePiece model has no pieces"));
        }
        let encoder = Encoder::SentencePiece(SentencePiece::new(&model)?);
        Ok(Self::new(encoder, Vocabulary::from_sentencepiece(&model), true))
    }

    /// Reads the text of a Hugging Face `tokenizer.json` with byte-pair encoding: with byte fallback as LLaMA's is, or byte by
    /// byte as those of GPT-2, Llama 3, Qwen 2 and SmolLM.
    ///
    /// # Errors
    /// If it is no such file, or of a kind that is not supported.
    pub fn from_tokenizer_json(text: &[u8]) -> Result<Self, TokenizerError> {
        let json: Value =
            serde_json::from_slice(text).map_err(|e| unusable(format_args!("not a tokenizer.json: {e}")))?;
        let vocabulary = Vocabulary::from_tokenizer_json(&json)?;
        let encoder = Encoder::HuggingFace(HuggingFace::new(&json)?);
        Ok(Self::new(encoder, vocabulary, companions::template_begins_with_token(&json["post_processor"])))
    }

    fn new(encoder: Encoder, vocabulary: Vocabulary, adds_bos: bool) -> Self {
        let control = match encoder {
            Encoder::SentencePiece(_) => vocabulary.control().map(|(text, id)| AddedToken::control(text, id)).collect(),
            Encoder::HuggingFace(_) => Vec::new(),
        };
        let (control, ends) = (AddedTokens::new(control), vocabulary.eos.into_iter().collect());
        Self { ends, encoder, vocabulary, control, adds_bos }
    }

    /// The same, with other tokens that end a text beside its own. Ids beyond the vocabulary are passed over.
    pub fn with_ends(mut self, ids: impl IntoIterator<Item = u32>) -> Self {
        for id in ids {
            if (id as usize) < self.vocab_size() && !self.ends.contains(&id) {
                self.ends.push(id);
            }
        }
        self
    }

    /// The same, with the tokens that begin and end a text, where a `tokenizer.json` does not say them. Ids beyond the vocabulary
    /// are none.
    pub fn with_boundaries(mut self, bos: Option<u32>, eos: Option<u32>) -> Self {
        let known = |id: Option<u32>| id.filter(|&id| (id as usize) < self.vocab_size());
        (self.vocabulary.bos, self.vocabulary.eos) = (known(bos), known(eos));
        self.ends = self.vocabulary.eos.into_iter().collect();
        self
    }

    /// The same, but for whether a prompt begins with BOS.
    pub fn with_bos(mut self, adds_bos: bool) -> Self {
        self.adds_bos = adds_bos;
        self
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

    /// Reads `path`: a `.model` or `.json` file, or a folder with a `tokenizer.model` or `tokenizer.json`. Whether a prompt begins
    /// with BOS, and what ends a text, is taken from the `tokenizer_config.json`, `generation_config.json` and `config.json`
    /// beside it.
    ///
    /// # Errors
    /// See [`TokenizerError`].
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let file = Self::find(path)?;
        let bytes = std::fs::read(&file).map_err(|source| TokenizerError::Io { path: file.clone(), source })?;
        let is_json = file.extension().is_some_and(|extension| extension == "json");
        let tokenizer = if is_json { Self::from_tokenizer_json(&bytes) } else { Self::from_sentencepiece(&bytes) };
        let tokenizer = tokenizer.map_err(|source| source.at(&file))?;
        let companions = Companions::of(&file)?;
        Ok(companions.complete(tokenizer))
    }

    /// The ids of `text`, without BOS and EOS. Spellings of control tokens in the text are plain text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        match &self.encoder {
            Encoder::SentencePiece(encoder) => encoder.encode(text),
            Encoder::HuggingFace(encoder) => encoder.encode(text, Markup::Plain),
        }
    }

    /// The ids of `text`, without BOS and EOS, where spellings of control tokens are those tokens: what a chat template writes.
    /// The character `mark` is left out; within a spelling it makes text of it.
    pub fn encode_with_control(&self, text: &str, mark: Option<char>) -> Vec<u32> {
        let markup = Markup::Control { mark };
        match (&self.encoder, &self.control) {
            (Encoder::HuggingFace(encoder), _) => encoder.encode(text, markup),
            (Encoder::SentencePiece(encoder), None) => encoder.encode(&markup.plain(text)),
            (Encoder::SentencePiece(encoder), Some(control)) => {
                let mut ids = Vec::new();
                control.split(text, true, |part| match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text { text, .. } => ids.extend(encoder.encode(&markup.plain(text))),
                });
                ids
            }
        }
    }

    /// How control tokens are spelt where a text may hold them.
    pub fn control_spellings(&self) -> impl Iterator<Item = &str> {
        self.vocabulary.control().map(|(spelling, _)| spelling)
    }

    /// How the control token `id` is spelt; `None` of any other.
    pub fn control_spelling(&self, id: u32) -> Option<&str> {
        self.vocabulary.control().find(|&(_, other)| other == id).map(|(spelling, _)| spelling)
    }

    /// The ids of a text that is to be gone on with: behind BOS if prompts of this tokenizer begin with it.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.encode_with(text, self.adds_bos, false)
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

    /// Whether a prompt begins with BOS. Unless a file says otherwise it does.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Id of the token that is put behind a text.
    pub fn eos_id(&self) -> Option<u32> {
        self.vocabulary.eos
    }

    /// All tokens at which generation ends: [`Self::eos_id`], and others that its files name, such as the end of a turn.
    pub fn eos_ids(&self) -> &[u32] {
        &self.ends
    }

    /// Whether generation ends at `id`.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Id of the token for what has no other.
    pub fn unk_id(&self) -> Option<u32> {
        self.vocabulary.unk
    }
}

/// Longest piece in bytes: SentencePiece learns pieces of up to 16 characters unless told otherwise. The time that a text takes
/// may grow with it.
const MAX_PIECE_BYTES: usize = 512;

/// Refuses a piece that is longer than any that is learnt.
fn check_length(piece: &str) -> Result<(), TokenizerError> {
    if piece.len() > MAX_PIECE_BYTES {
        let begin: String = piece.chars().take(20).collect();
        return Err(unusable(format_args!(
            "the piece {begin:?}… has {} bytes; at most {MAX_PIECE_BYTES} are possible",
            piece.len()
        )));
    }
    Ok(())
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}
