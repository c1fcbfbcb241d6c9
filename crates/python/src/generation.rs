//! A text in the making, as an iterator.

use std::sync::Arc;

use openelm_ffi as ffi;
use pyo3::prelude::*;

use crate::error::detached;
use crate::interruptible::SIGNALS;

/// Some text, and the tokens drawn since the piece before.
#[pyclass(frozen, get_all, module = "openelm")]
pub struct Piece {
    /// Whole characters. Only the last piece may be empty.
    text: String,
    /// Ids; the text of the last ones may come with the next piece.
    tokens: Vec<u32>,
    /// The logarithm of each token's probability, if asked for.
    log_probabilities: Option<Vec<f32>>,
}

#[pymethods]
impl Piece {
    fn __str__(&self) -> String {
        self.text.clone()
    }

    fn __repr__(&self) -> String {
        format!("Piece(text={:?}, tokens={:?})", self.text, self.tokens)
    }
}

/// Pieces of a text as they are made; other Python threads run meanwhile. Leaving a loop over it, or a `with` block of it, cancels.
#[pyclass(frozen, module = "openelm")]
pub struct Generation {
    pub inner: Arc<ffi::Generation>,
}

#[pymethods]
impl Generation {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Piece>> {
        while !py.detach(|| self.inner.is_ready_within(SIGNALS)) {
            py.check_signals()?;
        }
        let piece = detached(py, || self.inner.next())?;
        Ok(piece.map(|ffi::Piece { text, tokens }| Piece {
            text,
            log_probabilities: tokens.iter().map(|token| token.log_probability).collect::<Option<_>>(),
            tokens: tokens.iter().map(|token| token.id).collect(),
        }))
    }

    /// Ends the text at once. Its session holds the prompt and the tokens handed out.
    fn cancel(&self) {
        self.inner.cancel();
    }

    /// Computes no further than the next token until `resume`.
    fn pause(&self) {
        self.inner.pause();
    }

    /// Goes on after `pause`.
    fn resume(&self) {
        self.inner.resume();
    }

    /// Why the text ended: `"end_of_text"`, `"stop"`, `"max_tokens"`, `"context_full"`, `"cancelled"`; `None` while it goes on.
    #[getter]
    fn finish(&self) -> Option<&'static str> {
        self.inner.finish().map(|finish| match finish {
            ffi::Finish::EndOfText => "end_of_text",
            ffi::Finish::Stop => "stop",
            ffi::Finish::MaxTokens => "max_tokens",
            ffi::Finish::ContextFull => "context_full",
            ffi::Finish::Cancelled => "cancelled",
        })
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) {
        self.inner.cancel();
        py.detach(|| self.inner.join());
    }
}
