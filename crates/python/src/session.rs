//! A text that a model goes on with.

use std::sync::Arc;

use openelm_ffi as ffi;
use pyo3::prelude::*;

use crate::error::detached;
use crate::generation::Generation;

/// A conversation with a model: it remembers what it has read and written, and goes on from there.
#[pyclass(frozen, module = "openelm")]
pub struct Session {
    pub inner: Arc<ffi::Session>,
}

/// What a text goes on behind.
#[derive(FromPyObject)]
pub enum Prompt {
    /// Text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
    /// A conversation from its beginning.
    Messages(Vec<Message>),
}

/// One turn of a conversation, a dictionary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Message {
    role: String,
    content: String,
}

impl From<Message> for ffi::Message {
    fn from(Message { role, content }: Message) -> Self {
        Self { role, content }
    }
}

#[pymethods]
impl Session {
    /// Reads `prompt`, text or token ids, and writes on behind it, or answers a conversation: an iterator over pieces of text. The
    /// session is busy until that has ended or was cancelled.
    #[pyo3(signature = (
        prompt, *, max_tokens=200, temperature=0.8, top_k=0, top_p=0.95, min_p=0.0, repetition_penalty=1.0,
        no_repeat_ngram=0, seed=0, stop=Vec::new(), ignore_end=false, log_probabilities=false
    ))]
    #[allow(clippy::too_many_arguments)] // Keywords, as Python has them.
    fn generate(
        &self,
        py: Python<'_>,
        prompt: Prompt,
        max_tokens: u32,
        temperature: f32,
        top_k: u32,
        top_p: f32,
        min_p: f32,
        repetition_penalty: f32,
        no_repeat_ngram: u32,
        seed: u64,
        stop: Vec<String>,
        ignore_end: bool,
        log_probabilities: bool,
    ) -> PyResult<Generation> {
        let options = ffi::GenerationOptions {
            max_tokens,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            no_repeat_ngram,
            seed,
            stop,
            ignore_end,
            log_probabilities,
        };
        let inner = detached(py, || match prompt {
            Prompt::Text(text) => self.inner.generate(text, options),
            Prompt::Tokens(ids) => self.inner.generate_from_tokens(ids, options),
            Prompt::Messages(messages) => self.inner.chat(messages.into_iter().map(Into::into).collect(), options),
        })?;
        Ok(Generation { inner })
    }

    /// Another session that begins with the same text. What was computed of it is shared.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        Ok(Self { inner: detached(py, || self.inner.fork())? })
    }

    /// The text so far.
    #[getter]
    fn text(&self, py: Python<'_>) -> PyResult<String> {
        detached(py, || self.inner.text())
    }

    /// The tokens so far.
    #[getter]
    fn tokens(&self, py: Python<'_>) -> PyResult<Vec<u32>> {
        detached(py, || self.inner.tokens())
    }

    /// Forgets all tokens from position `tokens` on.
    fn truncate(&self, py: Python<'_>, tokens: u32) -> PyResult<()> {
        detached(py, || self.inner.truncate(tokens))
    }

    /// Gives back the keys and values; they are computed again, to the same bits, when the session goes on.
    fn drop_cache(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, || self.inner.drop_cache())
    }
}
