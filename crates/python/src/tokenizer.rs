//! The tokenizer.

use std::sync::Arc;

use pyo3::prelude::*;

/// Text to token ids and back.
#[pyclass(frozen, module = "openelm")]
pub struct Tokenizer {
    pub inner: Arc<openelm::Tokenizer>,
}

#[pymethods]
impl Tokenizer {
    /// The ids of `text`; unless told otherwise as those of a prompt, behind the token that begins a text if the model wants
    /// one.
    #[pyo3(signature = (text, is_prompt=true))]
    fn encode(&self, text: &str, is_prompt: bool) -> Vec<u32> {
        if is_prompt { self.inner.encode_prompt(text) } else { self.inner.encode(text) }
    }

    /// The text of `ids`; those beyond the vocabulary are passed over.
    fn decode(&self, ids: Vec<u32>) -> String {
        self.inner.decode(&ids)
    }

    /// The token that begins a text.
    #[getter]
    fn bos_token_id(&self) -> Option<u32> {
        self.inner.bos_id()
    }

    /// The token that is put behind a text.
    #[getter]
    fn eos_token_id(&self) -> Option<u32> {
        self.inner.eos_id()
    }

    /// All tokens at which generation ends.
    #[getter]
    fn eos_token_ids(&self) -> Vec<u32> {
        self.inner.eos_ids().to_vec()
    }

    /// Number of pieces.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.inner.vocab_size()
    }

    fn __len__(&self) -> usize {
        self.inner.vocab_size()
    }
}
