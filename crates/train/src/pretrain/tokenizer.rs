//! How the text of a run becomes ids.

use std::sync::Arc;

use openelm_model::{Tokenizer, clean};

use super::error::{PretrainError, at};
use crate::Recipe;
use crate::checkpoint;
use crate::data::{CorpusConfig, DataError, Encode, RowStream};

/// The tokenizer of a run and the file that every checkpoint takes along.
pub(super) struct RunTokenizer {
    pub tokenizer: Arc<Tokenizer>,
    pub file_name: String,
    pub bytes: Arc<[u8]>,
    pub sha256: String,
}

impl RunTokenizer {
    pub fn open(recipe: &Recipe) -> Result<Self, PretrainError> {
        let path = Tokenizer::find(&recipe.tokenizer.path)?;
        let tokenizer = Arc::new(Tokenizer::open(&path)?);
        let bytes = std::fs::read(&path).map_err(at(&path))?;
        let is_json = path.extension().is_some_and(|extension| extension == "json");
        let file_name = if is_json { "tokenizer.json" } else { "tokenizer.model" }.to_owned();
        Ok(Self { tokenizer, file_name, sha256: checkpoint::sha256(&bytes), bytes: bytes.into() })
    }

    /// The id behind the last piece, as in CoreNet: 32000 for LLaMA's.
    pub fn pad_id(&self) -> u32 {
        self.tokenizer.vocab_size() as u32
    }
}

/// Rows of `corpus`, of one id more than a sequence: without end for training, once and in order otherwise.
pub(super) fn rows(
    recipe: &Recipe,
    corpus: CorpusConfig,
    tokenizer: &RunTokenizer,
    training: bool,
) -> Result<RowStream, DataError> {
    let pad = tokenizer.pad_id();
    let (tokenizer, repair) = (tokenizer.tokenizer.clone(), recipe.tokenizer.clean);
    let encode: Encode = Arc::new(move |text| match repair {
        true => tokenizer.encode_with(&clean(text), true, true),
        false => tokenizer.encode_with(text, true, true),
    });
    RowStream::new(corpus, encode, recipe.train.sequence_length + 1, pad, recipe.train.seed, training)
}
