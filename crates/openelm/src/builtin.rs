//! The model compiled in.

use bytes::Bytes;
use openelm_formats::{FormatError, StoredModel, StoredTokenizer, huggingface};

const CONFIG: &[u8] = include_bytes!("../../../models/storyteller/config.json");
const WEIGHTS: &[u8] = include_bytes!("../../../models/storyteller/model.safetensors");
const TOKENIZER: &[u8] = include_bytes!("../../../models/storyteller/tokenizer.model");

/// The name that stands for the model compiled in, wherever a path is asked for.
pub const BUILTIN: &str = "builtin";

/// The small model that comes with the project, not loaded yet.
///
/// # Errors
/// None but those of a damaged build.
pub fn builtin() -> Result<StoredModel, FormatError> {
    // A copy, once: the bytes in the binary need not be aligned for their numbers.
    let weights = Bytes::copy_from_slice(WEIGHTS);
    let mut model = huggingface::from_bytes(CONFIG, weights, BUILTIN)?;
    model.tokenizer = Some(StoredTokenizer::SentencePiece(Bytes::from_static(TOKENIZER).into()));
    Ok(model)
}
